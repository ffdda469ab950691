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
#include "trainer/control.h"
#include "trainer/network.h"
#include "trainer/records.h"

namespace gradfs::trainer {

// Something to read the model from. One thread.
class ParameterSource {
 public:
  virtual ~ParameterSource() = default;
  // The newest parameters that this process can have, in memory of the source: valid until its next call, of
  // whatever function. Where that is the model itself they change while they are read, and may mix two
  // versions.
  virtual Result<std::span<const float>> current() = 0;
  // A copy of them; out has as many floats.
  Result<void> fetch(std::span<float> out);
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
  // No push follows. Returns when the other workers do not need this one any more.
  virtual Result<void> leave() { return ok(); }
  // Bytes of gradients and parameters that have left one process for another on this worker's behalf, each
  // counted once for each process that gets them: by a socket, a file, or memory that another one reads.
  [[nodiscard]] virtual std::uint64_t bytes_moved() const = 0;
};

enum class PushKind : std::uint8_t { kSlot, kFile };

struct ExchangeOptions {
  std::string model_directory;
  std::string run;  // names this run to the model; no two runs share it
  PushKind push = PushKind::kSlot;
  std::size_t workers = 1;
  // Of the architectures that take the step themselves; else what the model's descent.toml says, else Adam at
  // its usual rate.
  std::optional<std::string> optimizer;
  std::optional<double> learning_rate;
  RunControl* control = nullptr;  // its stop ends waits; outlives whatever is made from these options
  // For an architecture that starts programs: the descriptor of control, and this program's arguments without
  // its name.
  int control_fd = -1;
  std::vector<std::string> arguments;
};

// How to start the workers of an architecture that another program has to start: argv of that program, which
// ends when all of them have. Worker i tells the supervisor by the i-th record pipe.
struct WorkerLaunch {
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=VALUE, beside the supervisor's own
};

// The supervisor's view: what the model is, and the workers' exchanges. make_exchange is called in each
// worker's process after the fork, serve in a process of its own, the rest in the supervisor's.
class Architecture {
 public:
  virtual ~Architecture() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual const std::vector<DenseLayer>& layers() const = 0;
  [[nodiscard]] virtual std::uint64_t parameters() const = 0;
  // Lives as long as the architecture.
  virtual ParameterSource& observer() = 0;
  virtual Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) = 0;
  // Frees what workers left behind that were killed. No process of the run is left.
  virtual void clean_up(std::size_t workers) = 0;
  [[nodiscard]] virtual std::optional<std::uint64_t> version() const = 0;
  [[nodiscard]] virtual std::string optimizer() const = 0;

  // "driver", "server": a process that the workers need beside themselves, forked before them. "": none.
  [[nodiscard]] virtual std::string service() const { return ""; }
  // Its life, after prepare() in the supervisor. Returns when every worker has left or is gone.
  virtual Result<void> serve() { return ok(); }
  // In the supervisor, before any fork.
  virtual Result<void> prepare() { return ok(); }
  // Workers are not forked, but started by a program of which launch() tells. record_fds: the writing ends of
  // their pipes in the supervisor's process.
  [[nodiscard]] virtual bool launches_workers() const { return false; }
  virtual Result<WorkerLaunch> launch(const std::vector<int>& record_fds) { return WorkerLaunch(); }
  // The others cannot go on when a worker is lost.
  [[nodiscard]] virtual bool needs_all_workers() const { return false; }
  // Each gradient is applied as it comes, so that it may be of older parameters.
  [[nodiscard]] virtual bool is_asynchronous() const { return false; }
  // Gradients or parameters go by files, so that the filesystem's servers work for this run.
  [[nodiscard]] virtual bool works_through_files() const { return false; }
  // After all processes have ended: puts the trained parameters where the model came from, if they are not
  // there yet.
  virtual Result<void> finish() { return ok(); }
};

}  // namespace gradfs::trainer
