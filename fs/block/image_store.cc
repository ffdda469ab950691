#include "fs/block/image_store.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "fs/base/log.h"

namespace gradfs {
namespace {

std::string hex(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

Result<void> make_directory(const std::string& path) {
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) return errno_error(path, ec.value());
  return ok();
}

bool is_mount_point(const std::string& path) {
  struct stat self{};
  struct stat parent{};
  if (::stat(path.c_str(), &self) != 0 || ::stat((path + "/..").c_str(), &parent) != 0) return false;
  return self.st_dev != parent.st_dev;
}

// true: mounted (now, or by an earlier worker). false: this process may not mount.
Result<bool> mount_tmpfs(const std::string& path, std::uint64_t bytes) {
  const std::string size = "size=" + std::to_string(bytes) + ",nr_inodes=0,mode=0700";
  if (is_mount_point(path)) {
    struct statfs info{};
    if (::statfs(path.c_str(), &info) != 0) return errno_error(path);
    if (info.f_type != TMPFS_MAGIC) return Error(Errc::kBusy, path + " is a mount point of something else");
    const std::string resize = "size=" + std::to_string(bytes);
    if (::mount("gradfs", path.c_str(), "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV, resize.c_str()) != 0) {
      spdlog::warn("{} keeps its size: {}", path, errno_error("remount").message());
    }
    return true;
  }
  if (::mount("gradfs", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, (size + ",huge=within_size").c_str()) ==
      0)
    return true;
  if (errno == EINVAL && ::mount("gradfs", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, size.c_str()) == 0)
    return true;
  if (errno == EPERM || errno == EACCES) return false;
  return errno_error("mount tmpfs on " + path);
}

Result<void> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error(path);
  return ok();
}

}  // namespace

Result<ImageStore> ImageStore::open(const std::string& directory, std::uint64_t memory_bytes) {
  ImageStore store;
  store.memory_bytes_ = memory_bytes;
  GRADFS_TRYV(make_directory(directory));
  std::error_code ec;
  const std::string absolute = std::filesystem::canonical(directory, ec).string();
  if (ec) return errno_error(directory, ec.value());
  store.root_ = absolute + "/mem";
  GRADFS_TRYV(make_directory(store.root_));
  GRADFS_TRY(store.private_tmpfs_, mount_tmpfs(store.root_, memory_bytes));
  if (!store.private_tmpfs_) {
    store.root_ = "/dev/shm/gradfs-" + hex(std::hash<std::string>{}(absolute));
    GRADFS_TRYV(make_directory(store.root_));
    GRADFS_TRYV(replace_text_file(absolute + "/location", store.root_ + "\n"));
    spdlog::warn("may not mount a tmpfs: images are in {}, slower for large writes", store.root_);
  }
  GRADFS_TRY(store.lock_, open_file(store.root_ + "/lock", O_RDWR | O_CREAT));
  if (::flock(store.lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error(Errc::kBusy, store.root_ + " is in use by another worker");
  }
  for (const char* name : {"/images", "/control", "/staged"}) {
    GRADFS_TRYV(make_directory(store.root_ + name));
  }
  return store;
}

std::string ImageStore::image_path(InodeId inode) const { return root_ + "/images/" + hex(inode.value); }

std::string ImageStore::staged_path(BindingId binding, Sequence number) const {
  return root_ + "/staged/" + hex(binding.value) + "-" + hex(number.value);
}

Result<UniqueFd> ImageStore::open_image(InodeId inode, bool create) const {
  auto image = open_file(image_path(inode), O_RDWR | (create ? O_CREAT : 0), 0600);
  if (!image && image.error().code == Errc::kNotFound) return Error(Errc::kLost, "image " + hex(inode.value));
  return image;
}

Result<void> ImageStore::preallocate(const UniqueFd& image, std::uint64_t bytes) {
  if (::ftruncate(image.get(), static_cast<off_t>(bytes)) != 0) return errno_error("ftruncate");
  if (bytes > 0 && ::fallocate(image.get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
    Error error = errno_error("fallocate");
    if (::ftruncate(image.get(), 0) != 0) return errno_error("ftruncate");
    return error;
  }
  return ok();
}

Result<void> ImageStore::remove_image(InodeId inode) const { return remove_file(image_path(inode)); }

bool ImageStore::has_image(InodeId inode) const { return ::access(image_path(inode).c_str(), F_OK) == 0; }

Result<UniqueFd> ImageStore::open_control(InodeId directory, bool create) const {
  return open_file(root_ + "/control/" + hex(directory.value), O_RDWR | (create ? O_CREAT : 0), 0600);
}

Result<void> ImageStore::remove_control(InodeId directory) const {
  return remove_file(root_ + "/control/" + hex(directory.value));
}

Result<void> ImageStore::copy_contents(const UniqueFd& from, const UniqueFd& to) {
  struct stat info{};
  if (::fstat(from.get(), &info) != 0) return errno_error("fstat");
  if (::ftruncate(to.get(), info.st_size) != 0) return errno_error("ftruncate");
  off_t position = 0;
  while (position < info.st_size) {
    const off_t data = ::lseek(from.get(), position, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? Result<void>(ok()) : Result<void>(errno_error("lseek"));
    const off_t hole = ::lseek(from.get(), data, SEEK_HOLE);
    if (hole < 0) return errno_error("lseek");
    off_t in = data;
    off_t out = data;
    while (in < hole) {
      const ssize_t n =
          ::copy_file_range(from.get(), &in, to.get(), &out, static_cast<std::size_t>(hole - in), 0);
      if (n < 0) return errno_error("copy_file_range");
      if (n == 0) return ok();  // the source has become shorter
    }
    position = hole;
  }
  return ok();
}

Result<UniqueFd> ImageStore::stage_copy(BindingId binding, Sequence number, const UniqueFd& image) const {
  const std::string path = staged_path(binding, number);
  const std::string temporary = path + ".tmp";
  GRADFS_TRY(UniqueFd copy, open_file(temporary, O_RDWR | O_CREAT | O_TRUNC));
  auto copied = copy_contents(image, copy);
  if (!copied) {
    GRADFS_TRYV(remove_file(temporary));
    return std::move(copied).error();
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return errno_error(path);
  return copy;
}

Result<UniqueFd> ImageStore::open_staged(BindingId binding, Sequence number) const {
  return open_file(staged_path(binding, number), O_RDWR);
}

Result<void> ImageStore::remove_staged(BindingId binding, Sequence number) const {
  return remove_file(staged_path(binding, number));
}

Result<StoreUsage> ImageStore::usage() const {
  StoreUsage out;
  out.capacity_bytes = memory_bytes_;
  std::error_code ec;
  std::uint64_t blocks = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root_ + "/images", ec)) {
    ++out.images;
    if (private_tmpfs_) continue;
    struct stat info{};
    if (::stat(entry.path().c_str(), &info) == 0) blocks += static_cast<std::uint64_t>(info.st_blocks) * 512;
  }
  out.used_bytes = blocks;
  if (private_tmpfs_) {
    struct statvfs info{};
    if (::statvfs(root_.c_str(), &info) != 0) return errno_error(root_);
    out.capacity_bytes = info.f_blocks * info.f_frsize;
    out.used_bytes = (info.f_blocks - info.f_bfree) * info.f_frsize;
  }
  return out;
}

Result<void> ImageStore::check_room(std::uint64_t bytes) const {
  if (private_tmpfs_) return ok();
  GRADFS_TRY(const StoreUsage now, usage());
  if (bytes > now.capacity_bytes || now.used_bytes > now.capacity_bytes - bytes) {
    return Error(Errc::kNoSpace, "the worker's memory is full");
  }
  return ok();
}

}  // namespace gradfs
