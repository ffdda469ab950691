// The coprocessor architecture: the model is a file that the filesystem itself changes when a gradient lands.
//
// Parameters are read through a map of model.safetensors. A gradient goes by one of two ways:
//   slot   slots/RUN-wK.safetensors, made once and mapped: the gradient is computed in place, fsync pushes it
//   file   gradients/RUN-wK-STEP.safetensors, a new file each time, pushed by its close
// Both return when the model has the gradient. An unknown outcome (a server restarts, a signal) is answered
// by the same run, worker and step again: EEXIST says that it had counted.
#pragma once

#include <functional>

#include "trainer/exchange.h"
#include "trainer/model_file.h"

namespace gradfs::trainer {

inline constexpr std::int64_t kPushRetry_ms = 60'000;

// The model's directory is opened and its layers are read; kInvalid if they are not a fully connected
// network.
Result<std::unique_ptr<Architecture>> open_coprocessor(const ExchangeOptions& options);

// What to make of the errno of a push. ETIMEDOUT is tried again: a server may have been slow, and a round
// that did not fill has not used up the step.
enum class PushVerdict : std::uint8_t { kCounted, kDropped, kRefused, kRetryNow, kRetryLater, kFailed };
PushVerdict judge_push(int error_number) noexcept;

// Calls attempt, which returns 0 or an errno, until that is settled: again at once after EINTR, with a
// growing pause (5 ms to 1 s) after an unknown outcome, for at most limit_ms. A failure names `what` and the
// errno. control: its stop ends the wait; may be null.
Result<PushOutcome> push_until_settled(const std::function<int()>& attempt, const std::string& what,
                                       std::int64_t limit_ms, const RunControl* control);

}  // namespace gradfs::trainer
