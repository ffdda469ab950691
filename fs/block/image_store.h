// ImageStore: the images of a worker, one sparse file per inode in a tmpfs of its own.
//
//   DIR/mem/            the tmpfs: size = --memory, huge=within_size, no limit on inodes
//   DIR/mem/lock        flock, held by the worker (and what it starts) as long as it may store into images
//   DIR/mem/images/ID   16 hex digits of the inode id
//   DIR/mem/control/ID  the control file of a bound directory (coproc/descent/control.h), by the directory's
//   inode DIR/mem/staged/B-N  the frozen bytes of number N of binding B, where its writer has been let go
//   before it was applied DIR/location        where mem really is, when no tmpfs could be mounted: a
//   directory in /dev/shm
//
// The tmpfs is not the worker's heap: it outlives the process, and a new worker finds the images where they
// were. Thread-safe: every call is a few system calls on paths that are constant after open().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fs/base/fd.h"
#include "fs/base/ids.h"
#include "fs/base/result.h"

namespace gradfs {

struct StoreUsage {
  std::uint64_t capacity_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t images = 0;
};

class ImageStore {
 public:
  // Mounts the tmpfs if it is not there (or adopts the one that is), and takes the lock. kBusy: another
  // worker has it.
  static Result<ImageStore> open(const std::string& directory, std::uint64_t memory_bytes);

  // O_RDWR. Without `create` a missing image is kLost: never recreated as zeros.
  [[nodiscard]] Result<UniqueFd> open_image(InodeId inode, bool create) const;
  // ftruncate, then fallocate: pages that a store can no longer fail to get. kNoSpace leaves the image empty.
  static Result<void> preallocate(const UniqueFd& image, std::uint64_t bytes);
  // A missing image is not an error. Open descriptors and maps of it go on working.
  Result<void> remove_image(InodeId inode) const;
  [[nodiscard]] bool has_image(InodeId inode) const;

  [[nodiscard]] Result<UniqueFd> open_control(InodeId directory, bool create) const;
  Result<void> remove_control(InodeId directory) const;

  // Copies a whole image to staged/; appears under its name only when complete.
  [[nodiscard]] Result<UniqueFd> stage_copy(BindingId binding, Sequence number, const UniqueFd& image) const;
  [[nodiscard]] Result<UniqueFd> open_staged(BindingId binding, Sequence number) const;
  Result<void> remove_staged(BindingId binding, Sequence number) const;

  // Copies all bytes of one file into another, holes left out.
  static Result<void> copy_contents(const UniqueFd& from, const UniqueFd& to);

  [[nodiscard]] Result<StoreUsage> usage() const;
  // kNoSpace where `bytes` more would pass the limit, in /dev/shm; a tmpfs of our own sees to that itself.
  [[nodiscard]] Result<void> check_room(std::uint64_t bytes) const;
  [[nodiscard]] const std::string& root() const { return root_; }
  // false: /dev/shm, whose size is not ours to bound.
  [[nodiscard]] bool private_tmpfs() const { return private_tmpfs_; }

 private:
  [[nodiscard]] std::string image_path(InodeId inode) const;
  [[nodiscard]] std::string staged_path(BindingId binding, Sequence number) const;

  std::string root_;
  std::uint64_t memory_bytes_ = 0;
  bool private_tmpfs_ = false;
  UniqueFd lock_;
};

}  // namespace gradfs
