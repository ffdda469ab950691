// Exchange: how a worker gets parameters and gives gradients. An architecture is an implementation of it; the
// rest of the trainer knows no other way to the model.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fs/base/result.h"
#include "trainer/network.h"

namespace gradfs::trainer {

// Something to read the model from. One thread.
class ParameterSource {
 public:
  virtual ~ParameterSource() = default;
  // Copies the newest parameters that this host has; out has parameters() floats. They may mix two versions.
  virtual Result<void> fetch(std::span<float> out) = 0;
  // The parameters themselves, which change while they are read, where the architecture has them in this
  // process's memory; else empty. Valid as long as the source; to be called anew before each gradient, as
  // fetch() would be.
  virtual std::span<const float> live() { return {}; }
};

enum class PushOutcome : std::uint8_t {
  kCounted,  // the model has taken it, once
  kDropped,  // the model's policy did not want it (too late, or too stale): go on with newer parameters
};

// One worker's side. One thread.
class Exchange : public ParameterSource {
 public:
  // Where the next gradient is to be written: parameters() floats, the same memory for the whole run. It may
  // be written until push() is called, and again once that has returned.
  [[nodiscard]] virtual std::span<float> gradient() = 0;
  // Gives what gradient() holds as this worker's step, and waits for the outcome. loss: mean over its
  // samples. Steps rise by one from 1. An error ends the worker: what can be tried again has been.
  virtual Result<PushOutcome> push(std::uint64_t step, double loss) = 0;
};

enum class PushKind : std::uint8_t { kSlot, kFile };

struct ExchangeOptions {
  std::string model_directory;
  std::string run;  // names this run to the model; no two runs share it
  PushKind push = PushKind::kSlot;
  const std::atomic<bool>* stop = nullptr;  // ends waits between tries; may be null
};

// The supervisor's view: what the model is, and the workers' exchanges. make_exchange is called in each
// worker's process after the fork, the rest in the supervisor's.
class Architecture {
 public:
  virtual ~Architecture() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual const std::vector<DenseLayer>& layers() const = 0;
  [[nodiscard]] virtual std::uint64_t parameters() const = 0;
  // Lives as long as the architecture.
  virtual ParameterSource& observer() = 0;
  virtual Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) = 0;
  // Frees what workers left behind that were killed. No worker runs any more.
  virtual void clean_up(std::size_t workers) = 0;
  [[nodiscard]] virtual std::optional<std::uint64_t> version() const = 0;
  [[nodiscard]] virtual std::string optimizer() const = 0;
};

// name: as on the command line. kInvalid with the names that there are for another one.
Result<std::unique_ptr<Architecture>> make_architecture(const std::string& name,
                                                        const ExchangeOptions& options);

}  // namespace gradfs::trainer
