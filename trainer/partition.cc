#include "trainer/partition.h"

#include <algorithm>
#include <numeric>

#include "fs/base/check.h"
#include "fs/base/clock.h"

namespace gradfs::trainer {
namespace {

// Fisher and Yates. std::shuffle would give another order with another standard library.
template <class T>
void shuffle(std::vector<T>& items, std::uint64_t seed) {
  SeededRandom random(seed);
  for (std::size_t i = items.size(); i > 1; --i) {
    const auto pick = static_cast<std::size_t>(random.next_u64() % i);  // its bias is below i / 2^64
    std::swap(items[i - 1], items[pick]);
  }
}

std::uint64_t mix(std::uint64_t seed, std::uint64_t salt) {
  SeededRandom random(seed ^ (salt * 0x9e3779b97f4a7c15));
  return random.next_u64();
}

}  // namespace

Result<std::vector<std::vector<Rows>>> deal_partitions(std::size_t samples, std::size_t partitions,
                                                       std::size_t workers, std::uint64_t seed) {
  GRADFS_CHECK(workers > 0 && partitions > 0);
  if (samples < partitions) {
    return Error(Errc::kInvalid, std::to_string(samples) + " samples cannot be cut into " +
                                     std::to_string(partitions) + " partitions");
  }
  Rows all(samples);
  std::iota(all.begin(), all.end(), 0);
  shuffle(all, mix(seed, 0));
  std::vector<std::vector<Rows>> dealt(workers);
  for (std::size_t p = 0; p < partitions; ++p) {
    dealt[p % workers].emplace_back(
        all.begin() + static_cast<std::ptrdiff_t>(samples * p / partitions),
        all.begin() + static_cast<std::ptrdiff_t>(samples * (p + 1) / partitions));
  }
  return dealt;
}

BatchPlan::BatchPlan(std::vector<Rows> partitions, std::size_t batch_size, std::size_t batches_per_push,
                     double epochs, std::uint64_t seed)
    : partitions_(std::move(partitions)),
      batch_size_(batch_size),
      rows_per_push_(batch_size * batches_per_push),
      epochs_(epochs),
      seed_(seed) {
  GRADFS_CHECK(rows_per_push_ > 0 && std::ranges::none_of(partitions_, &Rows::empty));
  for (const Rows& rows : partitions_) rows_ += rows.size();
}

std::span<const std::uint32_t> BatchPlan::next() {
  if (partitions_.empty()) return {};
  if (at_ == partitions_[partition_].size()) {
    at_ = 0;
    partition_ = (partition_ + 1) % partitions_.size();
    if (partition_ == 0) {
      ++epoch_;
      in_epoch_ = 0;
    }
  }
  const double left = (epochs_ - static_cast<double>(epoch_)) * static_cast<double>(rows_);
  if (epochs_ != 0 && static_cast<double>(in_epoch_) >= left) return {};
  if (at_ == 0 && partition_ == 0) {
    const std::uint64_t seed = mix(seed_, epoch_ + 1);
    shuffle(partitions_, ~seed);
    for (std::size_t p = 0; p < partitions_.size(); ++p) shuffle(partitions_[p], seed + p);
  }
  const Rows& rows = partitions_[partition_];
  const std::size_t count = std::min(rows_per_push_, rows.size() - at_);
  const std::span<const std::uint32_t> group(rows.data() + at_, count);
  at_ += count;
  in_epoch_ += count;
  return group;
}

}  // namespace gradfs::trainer
