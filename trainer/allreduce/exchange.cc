#include "trainer/allreduce/exchange.h"

#include <mpi.h>

#include <algorithm>
#include <limits>

namespace gradfs::trainer {
namespace {

// Behind the gradient, so that one reduction tells all: how many gradients are in the sum, and how many ranks
// will come again.
constexpr std::size_t kCounted = 0;
constexpr std::size_t kActive = 1;
constexpr std::size_t kNotes = 2;

class AllreduceExchange final : public Exchange {
 public:
  AllreduceExchange(std::size_t rank, std::size_t ranks, std::span<float> parameters, std::span<float> copy,
                    FloatArray buffer, std::unique_ptr<Updater> updater, RunControl& control)
      : rank_(rank),
        ranks_(ranks),
        parameters_(parameters),
        copy_(copy),
        buffer_(std::move(buffer)),
        updater_(std::move(updater)),
        control_(control) {}

  Result<std::span<const float>> current() override { return parameters_; }
  std::span<float> gradient() override { return buffer_.span().first(parameters_.size()); }
  [[nodiscard]] std::uint64_t bytes_moved() const override { return bytes_moved_; }

  Result<PushOutcome> push(std::uint64_t step, double loss) override {
    const bool finite = updater_->is_finite(gradient());
    if (!finite) std::ranges::fill(gradient(), 0.0F);
    note(kCounted) = finite ? 1.0F : 0.0F;
    note(kActive) = 1.0F;
    GRADFS_TRYV(add_up());
    return finite ? PushOutcome::kCounted : PushOutcome::kRefused;
  }

  // Adds nothing, until no rank has anything to add.
  Result<void> leave() override {
    do {
      std::ranges::fill(buffer_.span(), 0.0F);
      GRADFS_TRYV(add_up());
    } while (note(kActive) > 0);
    if (rank_ != 0) return ok();
    std::ranges::copy(parameters_, copy_.begin());
    control_.left.store(true, std::memory_order_release);
    return ok();
  }

 private:
  float& note(std::size_t which) { return buffer_.span()[parameters_.size() + which]; }

  Result<void> add_up() {
    const int count = static_cast<int>(buffer_.size());
    const int status = MPI_Allreduce(MPI_IN_PLACE, buffer_.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    if (status != MPI_SUCCESS) return Error(Errc::kIo, "MPI_Allreduce: error " + std::to_string(status));
    // What any algorithm has to send for each rank: the ring's 2 (n - 1) / n of the buffer.
    bytes_moved_ += 2 * (ranks_ - 1) * parameters_.size() * sizeof(float) / ranks_;
    const float counted = note(kCounted);
    if (counted > 0) {
      const float* const sum = buffer_.data();
      updater_->apply(parameters_, std::span(&sum, 1), 1.0F / counted);
    }
    if (rank_ == 0) answer(counted > 0);
    return ok();
  }

  void answer(bool updated) {
    if (updated) control_.version.fetch_add(1);
    const std::uint32_t wanted = control_.wanted_copy.load(std::memory_order_acquire);
    if (wanted == control_.made_copy.load(std::memory_order_relaxed)) return;
    std::ranges::copy(parameters_, copy_.begin());
    control_.made_copy.store(wanted, std::memory_order_release);
  }

  const std::size_t rank_;
  const std::size_t ranks_;
  std::span<float> parameters_;
  std::span<float> copy_;
  FloatArray buffer_;
  std::unique_ptr<Updater> updater_;
  RunControl& control_;
  std::uint64_t bytes_moved_ = 0;
};

}  // namespace

Result<std::unique_ptr<Exchange>> RankArchitecture::make_exchange(std::size_t worker) {
  const std::size_t count = parameters() + kNotes;
  if (count > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    return Error(Errc::kTooBig, "MPI counts no more than 2^31 - 1 values");
  }
  GRADFS_TRY(FloatArray buffer, FloatArray::make_private(count));
  GRADFS_TRY(std::unique_ptr<Updater> updater,
             Updater::make(model_.layout, model_.config, update_threads(options_.workers)));
  return std::unique_ptr<Exchange>(
      std::make_unique<AllreduceExchange>(worker, options_.workers, model_.parameters.span(), copy_,
                                          std::move(buffer), std::move(updater), *options_.control));
}

}  // namespace gradfs::trainer
