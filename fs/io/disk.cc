#include "fs/io/disk.h"

#include <cstdlib>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/log.h"

namespace gradfs {
namespace {

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Task<Result<void>> write_and_sync(Disk& disk, std::string path, std::span<const std::byte> bytes) {
  const OpenOptions options{.write = true, .create = true, .truncate = true};
  GRADFS_CO_TRY(const auto file, co_await disk.open(path, options));
  GRADFS_CO_TRYV(co_await file->write_at(bytes, 0));
  co_return co_await file->sync();
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t size)
    : size_((size + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment),
      data_(static_cast<std::byte*>(
          std::aligned_alloc(kDirectAlignment, size_ == 0 ? kDirectAlignment : size_))) {
  GRADFS_CHECK(data_ != nullptr);
  std::memset(data_.get(), 0, size_);
}

void AlignedBuffer::Free::operator()(std::byte* data) const noexcept { std::free(data); }

std::unique_ptr<Disk> make_disk(Executor& executor) {
  auto disk = make_uring_disk(executor);
  if (disk) return std::move(disk).value();
  spdlog::info("disk: {}; using threads", disk.error().message());
  return make_threaded_disk(executor, 2);
}

Task<Result<void>> replace_file(Disk& disk, std::string path, std::span<const std::byte> bytes) {
  const std::string temporary = path + ".tmp";
  Result<void> done = co_await write_and_sync(disk, temporary, bytes);
  if (done) done = co_await disk.rename(temporary, path);
  if (!done) {
    // Best effort: what matters is the first error, and the next call replaces a leftover.
    (void)co_await disk.remove(temporary);
    co_return done;
  }
  co_return co_await disk.sync_directory(parent_of(path));
}

Task<Result<std::string>> read_file(Disk& disk, std::string path, std::size_t limit_bytes) {
  GRADFS_CO_TRY(const auto file, co_await disk.open(path, {}));
  GRADFS_CO_TRY(const std::uint64_t size, file->size());
  if (size > limit_bytes) co_return Error(Errc::kTooBig, path);
  std::string text(size, '\0');
  GRADFS_CO_TRY(const std::size_t read, co_await file->read_at(std::as_writable_bytes(std::span(text)), 0));
  text.resize(read);
  co_return text;
}

}  // namespace gradfs
