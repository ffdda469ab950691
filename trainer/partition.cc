#include "trainer/partition.h"

#include <algorithm>
#include <numeric>

#include "fs/base/check.h"
#include "fs/base/clock.h"

namespace gradfs::trainer {
namespace {

// Fisher and Yates. std::shuffle would give another order with another standard library.
void shuffle(Rows& rows, std::uint64_t seed) {
  SeededRandom random(seed);
  for (std::size_t i = rows.size(); i > 1; --i) {
    const auto pick = static_cast<std::size_t>(random.next_u64() % i);  // its bias is below i / 2^64
    std::swap(rows[i - 1], rows[pick]);
  }
}

std::uint64_t mix(std::uint64_t seed, std::uint64_t salt) {
  SeededRandom random(seed ^ (salt * 0x9e3779b97f4a7c15));
  return random.next_u64();
}

}  // namespace

Result<std::vector<Rows>> deal_rows(std::size_t samples, std::size_t partitions, std::size_t workers,
                                    std::uint64_t seed) {
  GRADFS_CHECK(workers > 0);
  if (partitions < workers) {
    return Error(Errc::kInvalid, std::to_string(workers) + " workers need at least as many partitions, not " +
                                     std::to_string(partitions));
  }
  if (samples < partitions) {
    return Error(Errc::kInvalid, std::to_string(samples) + " samples cannot be cut into " +
                                     std::to_string(partitions) + " partitions");
  }
  Rows all(samples);
  std::iota(all.begin(), all.end(), 0);
  shuffle(all, mix(seed, 0));
  std::vector<Rows> dealt(workers);
  for (std::size_t p = 0; p < partitions; ++p) {
    Rows& rows = dealt[p % workers];
    rows.insert(rows.end(), all.begin() + static_cast<std::ptrdiff_t>(samples * p / partitions),
                all.begin() + static_cast<std::ptrdiff_t>(samples * (p + 1) / partitions));
  }
  return dealt;
}

BatchPlan::BatchPlan(Rows rows, std::size_t batch_size, std::size_t batches_per_push, std::size_t epochs,
                     std::uint64_t seed)
    : rows_(std::move(rows)),
      batch_size_(batch_size),
      rows_per_push_(batch_size * batches_per_push),
      epochs_(epochs),
      seed_(seed) {
  GRADFS_CHECK(!rows_.empty() && rows_per_push_ > 0);
}

std::span<const std::uint32_t> BatchPlan::next() {
  if (at_ == rows_.size()) {
    at_ = 0;
    ++epoch_;
  }
  if (epochs_ != 0 && epoch_ == epochs_) return {};
  if (at_ == 0) shuffle(rows_, mix(seed_, epoch_ + 1));
  const std::size_t count = std::min(rows_per_push_, rows_.size() - at_);
  const std::span<const std::uint32_t> group(rows_.data() + at_, count);
  at_ += count;
  return group;
}

}  // namespace gradfs::trainer
