// What the processes of a run tell their supervisor: records of one size through a pipe each, whole or not at
// all.
#pragma once

#include <cstdint>
#include <string>

#include "fs/base/fd.h"
#include "fs/base/result.h"

namespace gradfs::trainer {

enum class PushOutcome : std::uint8_t {
  kCounted,  // the model has taken it, once
  kDropped,  // the model's policy did not want it (too late, or too stale): go on with newer parameters
  kRefused,  // it is not finite, and the model is as it was: go on with the next batch
};

enum class RecordKind : std::uint32_t {
  kReady = 1,   // the worker can begin
  kPush = 2,    // a push has ended
  kDone = 3,    // the worker has no more to do; its last record
  kFailed = 4,  // text says why; its last record
};

// Fixed size below PIPE_BUF, so that a write of one is atomic.
struct Record {
  RecordKind kind = RecordKind::kReady;
  PushOutcome outcome = PushOutcome::kCounted;
  // Of a push:
  std::uint64_t samples = 0;      // of this gradient
  double loss_sum = 0;            // over the samples
  std::int64_t started_ns = 0;    // monotonic, when its first batch began
  std::int64_t ended_ns = 0;      // monotonic, when the outcome was known
  std::int64_t compute_ns = 0;    // from the first batch's start until the gradient was ready
  std::int64_t exchange_ns = 0;   // from then on until parameters that contain it could be read
  std::uint64_t bytes_moved = 0;  // for this step, as Exchange::bytes_moved counts them
  std::int32_t pid = 0;           // kReady: of the worker
  char text[188] = {};
};
static_assert(sizeof(Record) == 256);

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

}  // namespace gradfs::trainer
