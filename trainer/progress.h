// What workers tell their supervisor: records of one size through a pipe each, whole or not at all.
#pragma once

#include <poll.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "fs/base/fd.h"
#include "fs/base/result.h"

namespace gradfs::trainer {

enum class RecordKind : std::uint32_t {
  kReady = 1,   // the worker can begin
  kPush = 2,    // a push has ended
  kDone = 3,    // the worker has no more to do; its last record
  kFailed = 4,  // text says why; its last record
};

// Fixed size below PIPE_BUF, so that a write of one is atomic.
struct Record {
  RecordKind kind = RecordKind::kReady;
  std::uint32_t counted = 0;    // kPush: 1 if the model took it
  std::uint64_t samples = 0;    // kPush: of this gradient
  double loss_sum = 0;          // kPush: over the samples
  std::int64_t started_ns = 0;  // kPush: monotonic, when its first batch began
  std::int64_t ended_ns = 0;    // kPush: monotonic, when the outcome was known
  char text[216] = {};
};
static_assert(sizeof(Record) == 256);

// A page shared by the supervisor (writes) and the workers (read).
struct RunControl {
  std::atomic<bool> go{false};
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> deadline_ns{0};  // monotonic; 0 for none. Set before go.
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

// The worker's end of the pipe. Writes wait while the pipe is full.
class RecordWriter {
 public:
  explicit RecordWriter(UniqueFd fd) : fd_(std::move(fd)) {}
  // False if the supervisor is gone.
  bool write(const Record& record);
  bool fail(const std::string& text);

 private:
  UniqueFd fd_;
};

// The supervisor's end. Never waits.
class RecordReader {
 public:
  explicit RecordReader(UniqueFd fd) : fd_(std::move(fd)) {}
  // The next record if there is a whole one.
  bool read(Record& record);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  UniqueFd fd_;
};

struct RecordPipe {
  UniqueFd reader;
  UniqueFd writer;
};
Result<RecordPipe> make_record_pipe();

// The mean loss of the latest `window` samples.
class LossWindow {
 public:
  explicit LossWindow(std::uint64_t window) : window_(window) {}
  void add(std::uint64_t samples, double loss_sum);
  [[nodiscard]] double mean() const noexcept;  // 0 before the first

 private:
  struct Part {
    std::uint64_t samples;
    double loss_sum;
  };
  std::uint64_t window_;
  std::uint64_t samples_ = 0;
  double loss_sum_ = 0;
  std::deque<Part> parts_;
};

// What the user sees while it works: a bar that is redrawn on a terminal, else a line at each evaluation.
class ProgressDisplay {
 public:
  struct State {
    double done = 0;    // of the whole run, 0 to 1
    double epoch = 0;   // completed, with a fraction
    double epochs = 0;  // wanted; 0 if the run ends by time
    double seconds = 0;
    double loss = 0;
    double accuracy = 0;  // of the last evaluation; below 0 before the first
    double samples_per_second = 0;
  };

  // terminal: whether stdout is one.
  explicit ProgressDisplay(bool terminal) : terminal_(terminal) {}
  void update(const State& state);        // redraws the bar, at most ten times a second
  void evaluated(const State& state);     // a line
  void message(const std::string& line);  // on stderr, without breaking the bar
  void finish();                          // removes the bar

  static std::string line(const State& state);
  static std::string bar(const State& state, std::size_t columns);

 private:
  bool terminal_;
  bool drawn_ = false;
  std::int64_t drawn_ns_ = 0;
};

}  // namespace gradfs::trainer
