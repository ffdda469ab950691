// Who trains on what, in which order: partitions of the samples, dealt to workers, shuffled and cut into
// batches. Everything follows from the seed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fs/base/result.h"

namespace gradfs::trainer {

using Rows = std::vector<std::uint32_t>;

// The partitions of each worker. The samples are shuffled once, cut into `partitions` parts whose sizes
// differ by at most one, and part p goes to worker p % workers; with fewer partitions than workers, the last
// ones get none. kInvalid, in one line, if there are fewer samples than partitions.
Result<std::vector<std::vector<Rows>>> deal_partitions(std::size_t samples, std::size_t partitions,
                                                       std::size_t workers, std::uint64_t seed);

// The batches of one worker: each epoch its partitions in a new order, and the rows of each in a new order.
// One thread.
class BatchPlan {
 public:
  // partitions: none of them empty; none at all is a plan that has ended. batches_per_push: how many batches
  // one gradient sums. epochs: passes over the partitions, the last of which ends early where it is no whole
  // number (after the push that reaches this share of the worker's rows); 0 for no end. A partition's last
  // batch may be short, and a push never reaches over a partition's end.
  BatchPlan(std::vector<Rows> partitions, std::size_t batch_size, std::size_t batches_per_push, double epochs,
            std::uint64_t seed);

  // The rows of the next push; empty at the end. Valid until the next call. batch_size says where to cut
  // them.
  std::span<const std::uint32_t> next();
  [[nodiscard]] std::size_t batch_size() const noexcept { return batch_size_; }

 private:
  std::vector<Rows> partitions_;
  std::size_t batch_size_;
  std::size_t rows_per_push_;
  double epochs_;
  std::size_t rows_ = 0;  // of all partitions
  std::uint64_t seed_;
  std::size_t epoch_ = 0;
  std::size_t partition_ = 0;  // that is handed out now
  std::size_t at_ = 0;         // rows of it that were
  std::size_t in_epoch_ = 0;   // rows of all partitions that were, in this epoch
};

}  // namespace gradfs::trainer
