#include <cstring>

#include "client/mount/mount.h"

namespace gradfs {
namespace {

constexpr std::uint32_t kPage = 1000;

}  // namespace

// The names as of the first read, so that offsets mean the same until rewinddir.
struct Mount::DirectoryHandle {
  bool loaded = false;
  InodeId parent;
  std::vector<wire::DirectoryEntry> entries;
};

void Mount::opendir(Request request, const fuse_file_info* info) {
  fuse_file_info reply = *info;
  reply.fh = next_handle_++;
  directories_[reply.fh] = std::make_shared<DirectoryHandle>();
  request.opened(reply);
}

void Mount::releasedir(Request request, std::uint64_t handle) {
  directories_.erase(handle);
  request.error(0);
}

Task<Result<void>> Mount::load_directory(InodeId inode, std::shared_ptr<DirectoryHandle> handle) {
  handle->entries.clear();
  std::string after;
  for (;;) {
    wire::ReadDirRequest ask;
    ask.set_inode(inode.value);
    ask.set_after(after);
    ask.set_limit(kPage);
    GRADFS_CO_TRY(auto page, co_await ask_master<rpc::ReadDir>(std::move(ask)));
    handle->parent = InodeId{page.parent()};
    for (auto& entry : *page.mutable_entries()) {
      after = entry.name();
      handle->entries.push_back(std::move(entry));
    }
    if (page.end() || page.entries().empty()) break;
  }
  handle->loaded = true;
  co_return ok();
}

Task<> Mount::readdir(Request request, InodeId inode, std::size_t size, off_t offset, std::uint64_t fh,
                      bool plus) {
  const auto found = directories_.find(fh);
  if (found == directories_.end()) co_return void(request.error(EBADF));
  const auto handle = found->second;
  if (offset == 0 || !handle->loaded) {
    auto loaded = co_await load_directory(inode, handle);
    if (!loaded) co_return reply_error(request, loaded.error());
  }
  std::string buffer(size, '\0');
  std::size_t used = 0;
  const std::size_t count = handle->entries.size() + 2;  // with . and ..
  for (auto i = static_cast<std::size_t>(offset); i < count; ++i) {
    fuse_entry_param entry{};
    std::string name = i == 0 ? "." : "..";
    if (i < 2) {
      entry.attr.st_ino = i == 0 ? inode.value : handle->parent.value;
      entry.attr.st_mode = S_IFDIR;
    } else {
      const wire::DirectoryEntry& from = handle->entries[i - 2];
      name = from.name();
      // status.json's size is known to its worker only: the kernel asks when it is looked up.
      if (plus && from.attr().role() != wire::STATUS) {
        remember(from.attr());
        entry = entry_of(from.attr(), inode);
      } else {
        entry.attr = stat_of(from.attr());
      }
    }
    const auto next = static_cast<off_t>(i + 1);
    const std::size_t needed =
        plus ? fuse_add_direntry_plus(nullptr, buffer.data() + used, size - used, name.c_str(), &entry, next)
             : fuse_add_direntry(nullptr, buffer.data() + used, size - used, name.c_str(), &entry.attr, next);
    if (needed > size - used) break;
    used += needed;
    if (plus && i >= 2 && entry.ino != 0) count_lookup(handle->entries[i - 2].attr(), inode, name);
  }
  request.bytes(buffer.data(), used);
}

}  // namespace gradfs
