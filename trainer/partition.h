// Who trains on what, in which order: partitions of the samples, dealt to workers, shuffled and cut into
// batches. Everything follows from the seed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fs/base/result.h"

namespace gradfs::trainer {

using Rows = std::vector<std::uint32_t>;

// The rows of each worker. The samples are shuffled once, cut into `partitions` parts whose sizes differ by
// at most one, and part p goes to worker p % workers. kInvalid, in one line, if a worker would get no row.
Result<std::vector<Rows>> deal_rows(std::size_t samples, std::size_t partitions, std::size_t workers,
                                    std::uint64_t seed);

// The batches of one worker: all its rows in a new order each epoch. One thread.
class BatchPlan {
 public:
  // batches_per_push: how many batches one gradient sums. epochs: 0 for no end. An epoch's last batch may be
  // short, and a push never reaches over an epoch's end.
  BatchPlan(Rows rows, std::size_t batch_size, std::size_t batches_per_push, std::size_t epochs,
            std::uint64_t seed);

  // The rows of the next push; empty at the end. Valid until the next call. batch_size says where to cut
  // them.
  std::span<const std::uint32_t> next();
  [[nodiscard]] std::size_t batch_size() const noexcept { return batch_size_; }

 private:
  Rows rows_;
  std::size_t batch_size_;
  std::size_t rows_per_push_;
  std::size_t epochs_;
  std::uint64_t seed_;
  std::size_t epoch_ = 0;
  std::size_t at_ = 0;  // rows of this epoch that were handed out
};

}  // namespace gradfs::trainer
