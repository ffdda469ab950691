#include <fcntl.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "fs/base/check.h"
#include "fs/io/system_calls.h"
#include "fs/net/sync.h"

namespace gradfs {
namespace {

constexpr unsigned kOperationsMax = 64;

struct Ring;

// One operation, in the frame of who waits for it. The kernel knows its address and its buffers, so that a
// frame that is destroyed while the operation is under way waits for it.
struct Flight {
  Flight(std::shared_ptr<Ring> r, Executor& executor) : ring(std::move(r)), waiter(executor) {}
  ~Flight();
  std::shared_ptr<Ring> ring;
  Waiter waiter;
  int result = 0;
  bool under_way = false;
};

// The ring and its event. Shared by the disk, its files, their operations and the executor's handler.
struct Ring {
  explicit Ring(Executor& e) : executor(e), slot_free(e) {}
  ~Ring() {
    if (is_open) io_uring_queue_exit(&ring);
  }

  Result<void> open() {
    const int result = io_uring_queue_init(kOperationsMax, &ring, 0);
    if (result < 0) return Error(Errc::kNotSupported, errno_error("io_uring", -result).detail);
    is_open = true;
    event.reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!event) return errno_error("eventfd");
    const int registered = io_uring_register_eventfd(&ring, event.get());
    if (registered < 0) return errno_error("io_uring_register_eventfd", -registered);
    return ok();
  }

  void submit(const io_uring_sqe& prepared, Flight& flight) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring);
    GRADFS_CHECK(entry != nullptr);  // never more under way than there are entries
    *entry = prepared;
    io_uring_sqe_set_data(entry, &flight);
    flight.under_way = true;
    ++under_way;
    int submitted = 0;
    do {
      submitted = io_uring_submit(&ring);
    } while (submitted == -EINTR || submitted == -EAGAIN);
    GRADFS_CHECK(submitted >= 0);
  }

  // Takes what has ended; wakes who waits for it.
  void reap() {
    io_uring_cqe* ended = nullptr;
    while (io_uring_peek_cqe(&ring, &ended) == 0) {
      auto* flight = static_cast<Flight*>(io_uring_cqe_get_data(ended));
      flight->result = ended->res;
      flight->under_way = false;
      io_uring_cqe_seen(&ring, ended);
      --under_way;
      flight->waiter.wake();
    }
    slot_free.notify_all();
  }

  bool on_event() {
    eventfd_t ignored = 0;
    (void)::eventfd_read(event.get(), &ignored);
    reap();
    return !closing || under_way > 0;
  }

  Executor& executor;
  io_uring ring{};
  bool is_open = false;
  UniqueFd event;
  Notify slot_free;
  unsigned under_way = 0;
  bool closing = false;  // the disk is gone; the handler leaves with the last operation
};

Flight::~Flight() {
  while (under_way) {
    io_uring_cqe* ended = nullptr;
    (void)io_uring_wait_cqe(&ring->ring, &ended);
    ring->reap();
  }
}

using RingPointer = std::shared_ptr<Ring>;

// The result of the operation as the kernel gives it: a count, a descriptor, or minus an errno.
Task<int> perform(RingPointer ring, io_uring_sqe prepared) {
  while (ring->under_way >= kOperationsMax) co_await ring->slot_free.wait(-1);
  Flight flight(ring, ring->executor);
  ring->submit(prepared, flight);
  co_await flight.waiter.wait(-1);
  co_return flight.result;
}

Task<Result<void>> perform_void(RingPointer ring, io_uring_sqe prepared, std::string what) {
  const int result = co_await perform(std::move(ring), prepared);
  if (result < 0) co_return errno_error(what, -result);
  co_return ok();
}

class UringFile final : public File {
 public:
  UringFile(RingPointer ring, UniqueFd fd) : ring_(std::move(ring)), fd_(std::move(fd)) {}

  Task<Result<std::size_t>> read_at(std::span<std::byte> out, std::uint64_t offset) override {
    std::size_t done = 0;
    while (done < out.size()) {
      const auto length = static_cast<unsigned>(std::min(out.size() - done, io::kTransferBytes));
      io_uring_sqe operation{};
      io_uring_prep_read(&operation, fd_.get(), out.data() + done, length, offset + done);
      const int n = co_await perform(ring_, operation);
      if (n == -EINTR || n == -EAGAIN) continue;
      if (n < 0) co_return errno_error("read", -n);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    co_return done;
  }

  Task<Result<void>> write_at(std::span<const std::byte> in, std::uint64_t offset) override {
    std::size_t done = 0;
    while (done < in.size()) {
      const auto length = static_cast<unsigned>(std::min(in.size() - done, io::kTransferBytes));
      io_uring_sqe operation{};
      io_uring_prep_write(&operation, fd_.get(), in.data() + done, length, offset + done);
      const int n = co_await perform(ring_, operation);
      if (n == -EINTR || n == -EAGAIN) continue;
      if (n <= 0) co_return errno_error("write", n == 0 ? EIO : -n);
      done += static_cast<std::size_t>(n);
    }
    co_return ok();
  }

  Task<Result<void>> sync() override {
    io_uring_sqe operation{};
    io_uring_prep_fsync(&operation, fd_.get(), IORING_FSYNC_DATASYNC);
    co_return co_await perform_void(ring_, operation, "fdatasync");
  }

  Result<std::uint64_t> size() override { return io::size_of(fd_); }

 private:
  const RingPointer ring_;
  const UniqueFd fd_;
};

class UringDisk final : public Disk {
 public:
  UringDisk(Executor& executor, RingPointer ring) : ring_(std::move(ring)), pool_(executor, 1) {
    executor.on_readable(ring_->event.get(), [ring = ring_] { return ring->on_event(); });
  }
  ~UringDisk() override {
    ring_->closing = true;
    (void)::eventfd_write(ring_->event.get(), 1);
  }

  Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) override {
    const int flags = io::open_flags(options);
    int fd = co_await open_fd(path, flags);
    if (fd == -EINVAL && options.direct) fd = co_await open_fd(path, flags & ~O_DIRECT);
    if (fd < 0) co_return errno_error(path, -fd);
    std::unique_ptr<File> file = std::make_unique<UringFile>(ring_, UniqueFd(fd));
    co_return file;
  }

  Task<Result<void>> rename(std::string from, std::string to) override {
    io_uring_sqe operation{};
    io_uring_prep_renameat(&operation, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 0);
    co_return co_await perform_void(ring_, operation, from);
  }

  Task<Result<void>> remove(std::string path) override {
    io_uring_sqe operation{};
    io_uring_prep_unlinkat(&operation, AT_FDCWD, path.c_str(), 0);
    const int result = co_await perform(ring_, operation);
    if (result == -EISDIR) {
      io_uring_prep_unlinkat(&operation, AT_FDCWD, path.c_str(), AT_REMOVEDIR);
      co_return co_await perform_void(ring_, operation, path);
    }
    if (result < 0) co_return errno_error(path, -result);
    co_return ok();
  }

  // A ring reads no directories.
  Task<Result<std::vector<std::string>>> list(std::string directory) override {
    Result<std::vector<std::string>> names = Error(Errc::kIo);
    std::function<void()> work = [&] { names = io::list_names(directory); };
    co_await pool_.run(std::move(work));
    co_return names;
  }

  Task<Result<void>> make_directory(std::string path) override {
    io_uring_sqe operation{};
    io_uring_prep_mkdirat(&operation, AT_FDCWD, path.c_str(), io::kDirectoryMode);
    co_return co_await perform_void(ring_, operation, path);
  }

  Task<Result<void>> sync_directory(std::string directory) override {
    const int result = co_await open_fd(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (result < 0) co_return errno_error(directory, -result);
    const UniqueFd fd(result);
    io_uring_sqe operation{};
    io_uring_prep_fsync(&operation, fd.get(), 0);
    co_return co_await perform_void(ring_, operation, directory);
  }

 private:
  Task<int> open_fd(const std::string& path, int flags) {
    io_uring_sqe operation{};
    io_uring_prep_openat(&operation, AT_FDCWD, path.c_str(), flags, io::kFileMode);
    co_return co_await perform(ring_, operation);
  }

  const RingPointer ring_;
  WorkerPool pool_;
};

}  // namespace

Result<std::unique_ptr<Disk>> make_uring_disk(Executor& executor) {
  auto ring = std::make_shared<Ring>(executor);
  GRADFS_TRYV(ring->open());
  return std::unique_ptr<Disk>(std::make_unique<UringDisk>(executor, std::move(ring)));
}

}  // namespace gradfs
