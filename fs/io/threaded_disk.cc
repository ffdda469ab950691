#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <functional>

#include "fs/base/check.h"
#include "fs/io/system_calls.h"
#include "fs/net/sync.h"

namespace gradfs {
namespace io {

int open_flags(const OpenOptions& options) {
  int flags = O_CLOEXEC | (options.write ? O_RDWR : O_RDONLY);
  if (options.create) flags |= O_CREAT;
  if (options.create && options.exclusive) flags |= O_EXCL;
  if (options.truncate) flags |= O_TRUNC;
  if (options.direct) flags |= O_DIRECT;
  return flags;
}

Result<std::uint64_t> size_of(const UniqueFd& fd) {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return errno_error("fstat");
  return static_cast<std::uint64_t>(status.st_size);
}

Result<std::vector<std::string>> list_names(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(directory.c_str()), ::closedir);
  if (stream == nullptr) return errno_error(directory);
  std::vector<std::string> names;
  for (errno = 0; const dirent* entry = ::readdir(stream.get()); errno = 0) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) return errno_error(directory);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace io

namespace {

using Pool = std::shared_ptr<WorkerPool>;

// Runs a call on the pool; the references in `call` are to frames that wait for it.
template <class T>
Task<Result<T>> on_pool(Pool pool, std::function<Result<T>()> call) {
  Result<T> result = Error(Errc::kIo);
  std::function<void()> work = [&result, &call] { result = call(); };
  co_await pool->run(std::move(work));
  co_return result;
}

Result<void> checked(int result, const std::string& what) {
  if (result != 0) return errno_error(what);
  return ok();
}

class ThreadedFile final : public File {
 public:
  ThreadedFile(Pool pool, UniqueFd fd) : pool_(std::move(pool)), fd_(std::move(fd)) {}

  Task<Result<std::size_t>> read_at(std::span<std::byte> out, std::uint64_t offset) override {
    std::function<Result<std::size_t>()> call = [this, out, offset]() -> Result<std::size_t> {
      std::size_t done = 0;
      while (done < out.size()) {
        const std::size_t length = std::min(out.size() - done, io::kTransferBytes);
        const ssize_t n = ::pread(fd_.get(), out.data() + done, length, static_cast<off_t>(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno_error("read");
        if (n == 0) break;
        done += static_cast<std::size_t>(n);
      }
      return done;
    };
    co_return co_await on_pool(pool_, std::move(call));
  }

  Task<Result<void>> write_at(std::span<const std::byte> in, std::uint64_t offset) override {
    std::function<Result<void>()> call = [this, in, offset] { return write_fully_at(fd_.get(), in, offset); };
    co_return co_await on_pool(pool_, std::move(call));
  }

  Task<Result<void>> sync() override {
    std::function<Result<void>()> call = [this] { return checked(::fdatasync(fd_.get()), "fdatasync"); };
    co_return co_await on_pool(pool_, std::move(call));
  }

  Result<std::uint64_t> size() override { return io::size_of(fd_); }

 private:
  const Pool pool_;
  const UniqueFd fd_;
};

class ThreadedDisk final : public Disk {
 public:
  ThreadedDisk(Executor& executor, unsigned threads)
      : pool_(std::make_shared<WorkerPool>(executor, threads)) {
    GRADFS_CHECK(threads >= 1);
  }

  Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) override {
    std::function<Result<int>()> call = [&path, options]() -> Result<int> {
      const int flags = io::open_flags(options);
      int fd = ::open(path.c_str(), flags, io::kFileMode);
      if (fd < 0 && errno == EINVAL && options.direct)
        fd = ::open(path.c_str(), flags & ~O_DIRECT, io::kFileMode);
      if (fd < 0) return errno_error(path);
      return fd;
    };
    GRADFS_CO_TRY(const int fd, co_await on_pool(pool_, std::move(call)));
    std::unique_ptr<File> file = std::make_unique<ThreadedFile>(pool_, UniqueFd(fd));
    co_return file;
  }

  Task<Result<void>> rename(std::string from, std::string to) override {
    std::function<Result<void>()> call = [&] { return checked(::rename(from.c_str(), to.c_str()), from); };
    co_return co_await on_pool(pool_, std::move(call));
  }

  Task<Result<void>> remove(std::string path) override {
    std::function<Result<void>()> call = [&] { return checked(std::remove(path.c_str()), path); };
    co_return co_await on_pool(pool_, std::move(call));
  }

  Task<Result<std::vector<std::string>>> list(std::string directory) override {
    std::function<Result<std::vector<std::string>>()> call = [&] { return io::list_names(directory); };
    co_return co_await on_pool(pool_, std::move(call));
  }

  Task<Result<void>> make_directory(std::string path) override {
    std::function<Result<void>()> call = [&] {
      return checked(::mkdir(path.c_str(), io::kDirectoryMode), path);
    };
    co_return co_await on_pool(pool_, std::move(call));
  }

  Task<Result<void>> sync_directory(std::string directory) override {
    std::function<Result<void>()> call = [&]() -> Result<void> {
      GRADFS_TRY(const UniqueFd fd, open_file(directory, O_RDONLY | O_DIRECTORY));
      return checked(::fsync(fd.get()), directory);
    };
    co_return co_await on_pool(pool_, std::move(call));
  }

 private:
  const Pool pool_;
};

}  // namespace

std::unique_ptr<Disk> make_threaded_disk(Executor& executor, unsigned threads) {
  return std::make_unique<ThreadedDisk>(executor, threads);
}

}  // namespace gradfs
