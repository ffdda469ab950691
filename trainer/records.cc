#include "trainer/records.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "fs/base/check.h"

namespace gradfs::trainer {
namespace {

static_assert(sizeof(Record) <= PIPE_BUF);

constexpr int kPipeBytes = 1 << 20;

}  // namespace

bool RecordWriter::write(const Record& record) {
  for (;;) {
    const ssize_t n = ::write(fd_.get(), &record, sizeof record);
    if (n == sizeof record) return true;
    if (n < 0 && errno == EINTR) continue;
    return false;
  }
}

bool RecordWriter::fail(const std::string& text) {
  Record record;
  record.kind = RecordKind::kFailed;
  std::strncpy(record.text, text.c_str(), sizeof record.text - 1);
  return write(record);
}

bool RecordReader::read(Record& record) {
  for (;;) {
    const ssize_t n = ::read(fd_.get(), &record, sizeof record);
    if (n < 0 && errno == EINTR) continue;
    GRADFS_CHECK(n <= 0 || n == sizeof record);
    return n > 0;
  }
}

Result<RecordPipe> make_record_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return errno_error("pipe");
  RecordPipe out{UniqueFd(fds[0]), UniqueFd(fds[1])};
  if (::fcntl(fds[0], F_SETFL, O_NONBLOCK) != 0) return errno_error("fcntl");
  ::fcntl(fds[1], F_SETPIPE_SZ, kPipeBytes);  // a smaller one only makes workers wait more often
  return out;
}

}  // namespace gradfs::trainer
