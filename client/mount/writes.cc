// Writes that come to the daemon. Where the worker's memory is not a tmpfs of its own, nothing but these
// bounds it.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "client/mount/mount.h"
#include "fs/base/log.h"

namespace gradfs {
namespace {

constexpr std::size_t kTextMax = 1 << 20;
// The worker is asked once for so much: what several mounts may write beyond its limit.
constexpr std::uint64_t kRoomAtOnce = 8 << 20;

// Whether a write there takes no memory.
bool is_allocated(int image, off_t offset, std::uint64_t size) {
  const off_t hole = ::lseek(image, offset, SEEK_HOLE);
  struct stat info{};
  if (hole < 0 || ::fstat(image, &info) != 0) return false;
  const off_t end = offset + static_cast<off_t>(size);
  return hole >= end && info.st_size >= end;
}

}  // namespace

void Mount::note_bounds(RpcClient& worker, const wire::OpenImageResponse& image) {
  if (image.bounded() || unbounded_ != nullptr) return;
  unbounded_ = &worker;
  spdlog::warn(
      "the worker could not mount a tmpfs: files take the ordinary data path, so that its memory is bounded");
}

void Mount::write(Request request, std::shared_ptr<OpenFile> file, const char* data, std::size_t size,
                  off_t offset) {
  const auto found = nodes_.find(file->inode);
  if (found != nodes_.end() && is_text(found->second.attr.role(), found->second.attr)) {
    return write_text(request, *file, data, size, offset);
  }
  if (unbounded_ != nullptr && room_bytes_ < size) {
    scope_.spawn(write_if_there_is_room(request, std::move(file), std::string(data, size), offset));
    return;
  }
  if (unbounded_ != nullptr) room_bytes_ -= size;
  const ssize_t n = ::pwrite(image_fd(*file), data, size, offset);
  if (n < 0) return void(request.error(errno));
  request.written(static_cast<std::size_t>(n));
}

void Mount::write_text(Request request, OpenFile& file, const char* data, std::size_t size, off_t offset) {
  const std::size_t end = static_cast<std::size_t>(offset) + size;
  if (end > kTextMax) return void(request.error(EFBIG));
  if (file.text.size() < end) file.text.resize(end);
  file.text.replace(static_cast<std::size_t>(offset), size, data, size);
  file.dirty = true;
  request.written(size);
}

Task<> Mount::write_if_there_is_room(Request request, std::shared_ptr<OpenFile> file, std::string data,
                                     off_t offset) {
  auto taken = co_await take_room(image_fd(*file), offset, data.size());
  if (!taken) co_return reply_error(request, taken.error());
  const ssize_t n = ::pwrite(image_fd(*file), data.data(), data.size(), offset);
  if (n < 0) co_return void(request.error(errno));
  request.written(static_cast<std::size_t>(n));
}

Task<> Mount::fallocate(Request request, std::shared_ptr<OpenFile> file, int mode, off_t offset,
                        off_t length) {
  if (!file->write) co_return void(request.error(EBADF));
  if (unbounded_ != nullptr && (mode & FALLOC_FL_PUNCH_HOLE) == 0) {
    auto taken = co_await take_room(image_fd(*file), offset, static_cast<std::uint64_t>(length));
    if (!taken) co_return reply_error(request, taken.error());
  }
  request.error(::fallocate(image_fd(*file), mode, offset, length) == 0 ? 0 : errno);
}

Task<Result<void>> Mount::take_room(int image, off_t offset, std::uint64_t size) {
  if (is_allocated(image, offset, size)) co_return ok();
  const CallOptions options{.timeout_ns = options_.timeout_ns};
  GRADFS_CO_TRY(const auto now, co_await unbounded_->call<rpc::WorkerStatus>(wire::Empty(), options));
  const std::uint64_t left = now.capacity_bytes() - std::min(now.used_bytes(), now.capacity_bytes());
  if (left < size) co_return Error(Errc::kNoSpace, "the worker's memory is full");
  room_bytes_ = std::min(left, std::max(size, kRoomAtOnce)) - size;
  co_return ok();
}

}  // namespace gradfs
