// The table for libfuse: each operation is handed to a coroutine of Mount, with its arguments copied.
#include <fcntl.h>

#include "client/mount/mount.h"

namespace gradfs {

struct Operations {
  static Mount& self(fuse_req_t request) { return *static_cast<Mount*>(fuse_req_userdata(request)); }

  static void init(void* user, fuse_conn_info* connection) {
    auto* mount = static_cast<Mount*>(user);
    connection->want &=
        ~(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE);
    // Without passthrough an O_TRUNC in OPEN would cut the page cache under those who map the model.
    if (mount->plain_) connection->want &= ~FUSE_CAP_ATOMIC_O_TRUNC;
    if ((connection->capable & FUSE_CAP_PARALLEL_DIROPS) != 0) connection->want |= FUSE_CAP_PARALLEL_DIROPS;
  }
  static void lookup(fuse_req_t r, fuse_ino_t parent, const char* name) {
    Mount& m = self(r);
    m.scope_.spawn(m.lookup(m.begin(r), m.to_inode(parent), name));
  }
  static void forget(fuse_req_t r, fuse_ino_t node, std::uint64_t count) {
    self(r).forget(self(r).to_inode(node), count);
    fuse_reply_none(r);
  }
  static void forget_multi(fuse_req_t r, std::size_t count, fuse_forget_data* nodes) {
    for (std::size_t i = 0; i < count; ++i) self(r).forget(self(r).to_inode(nodes[i].ino), nodes[i].nlookup);
    fuse_reply_none(r);
  }
  static void getattr(fuse_req_t r, fuse_ino_t node, fuse_file_info* info) {
    Mount& m = self(r);
    m.scope_.spawn(m.getattr(m.begin(r), m.to_inode(node), info != nullptr ? info->fh : 0));
  }
  static void setattr(fuse_req_t r, fuse_ino_t node, struct stat* attr, int valid, fuse_file_info* info) {
    Mount& m = self(r);
    m.scope_.spawn(m.setattr(m.begin(r), m.to_inode(node), *attr, valid, info != nullptr ? info->fh : 0));
  }
  static void readlink(fuse_req_t r, fuse_ino_t node) {
    Mount& m = self(r);
    const auto found = m.nodes_.find(m.to_inode(node));
    if (found == m.nodes_.end()) return void(fuse_reply_err(r, ENOENT));
    fuse_reply_readlink(r, found->second.attr.symlink_target().c_str());
  }
  static void mknod(fuse_req_t r, fuse_ino_t parent, const char* name, mode_t mode, dev_t) {
    Mount& m = self(r);
    if (!S_ISREG(mode)) return void(fuse_reply_err(r, EPERM));
    m.scope_.spawn(m.make(m.begin(r), m.to_inode(parent), name, wire::REGULAR, mode, ""));
  }
  static void mkdir(fuse_req_t r, fuse_ino_t parent, const char* name, mode_t mode) {
    Mount& m = self(r);
    m.scope_.spawn(m.make(m.begin(r), m.to_inode(parent), name, wire::DIRECTORY, mode, ""));
  }
  static void symlink(fuse_req_t r, const char* target, fuse_ino_t parent, const char* name) {
    Mount& m = self(r);
    m.scope_.spawn(m.make(m.begin(r), m.to_inode(parent), name, wire::SYMLINK, 0777, target));
  }
  static void unlink(fuse_req_t r, fuse_ino_t parent, const char* name) {
    Mount& m = self(r);
    m.scope_.spawn(m.remove(m.begin(r), m.to_inode(parent), name, false));
  }
  static void rmdir(fuse_req_t r, fuse_ino_t parent, const char* name) {
    Mount& m = self(r);
    m.scope_.spawn(m.remove(m.begin(r), m.to_inode(parent), name, true));
  }
  static void rename(fuse_req_t r, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
                     const char* new_name, unsigned flags) {
    Mount& m = self(r);
    m.scope_.spawn(m.rename(m.begin(r), m.to_inode(parent), name, m.to_inode(new_parent), new_name, flags));
  }
  static void open(fuse_req_t r, fuse_ino_t node, fuse_file_info* info) {
    Mount& m = self(r);
    m.scope_.spawn(m.open(m.begin(r), m.to_inode(node), info->flags));
  }
  static void create(fuse_req_t r, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
    Mount& m = self(r);
    m.scope_.spawn(m.create(m.begin(r), m.to_inode(parent), name, mode, info->flags));
  }
  static void read(fuse_req_t r, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
    const auto file = self(r).find_open(info->fh);
    if (file == nullptr) return void(fuse_reply_err(r, EBADF));
    self(r).read(self(r).begin(r), *file, size, offset);
  }
  static void write(fuse_req_t r, fuse_ino_t, const char* data, std::size_t size, off_t offset,
                    fuse_file_info* info) {
    const auto file = self(r).find_open(info->fh);
    if (file == nullptr) return void(fuse_reply_err(r, EBADF));
    self(r).write(self(r).begin(r), file, data, size, offset);
  }
  static void flush(fuse_req_t r, fuse_ino_t, fuse_file_info* info) {
    Mount& m = self(r);
    m.scope_.spawn(m.flush(m.begin(r), info->fh));
  }
  static void release(fuse_req_t r, fuse_ino_t, fuse_file_info* info) {
    self(r).release(self(r).begin(r), info->fh);
  }
  static void fsync(fuse_req_t r, fuse_ino_t, int, fuse_file_info* info) {
    Mount& m = self(r);
    m.scope_.spawn(m.fsync(m.begin(r), info->fh));
  }
  static void opendir(fuse_req_t r, fuse_ino_t, fuse_file_info* info) {
    self(r).opendir(self(r).begin(r), info);
  }
  static void readdir(fuse_req_t r, fuse_ino_t node, std::size_t size, off_t offset, fuse_file_info* info) {
    Mount& m = self(r);
    m.scope_.spawn(m.readdir(m.begin(r), m.to_inode(node), size, offset, info->fh, false));
  }
  static void readdirplus(fuse_req_t r, fuse_ino_t node, std::size_t size, off_t offset,
                          fuse_file_info* info) {
    Mount& m = self(r);
    m.scope_.spawn(m.readdir(m.begin(r), m.to_inode(node), size, offset, info->fh, true));
  }
  static void releasedir(fuse_req_t r, fuse_ino_t, fuse_file_info* info) {
    self(r).releasedir(self(r).begin(r), info->fh);
  }
  static void fsyncdir(fuse_req_t r, fuse_ino_t, int, fuse_file_info*) {
    Mount& m = self(r);
    m.scope_.spawn(m.fsyncdir(m.begin(r)));
  }
  static void statfs(fuse_req_t r, fuse_ino_t) {
    Mount& m = self(r);
    m.scope_.spawn(m.statfs(m.begin(r)));
  }
  static void getxattr(fuse_req_t r, fuse_ino_t node, const char* name, std::size_t size) {
    Mount& m = self(r);
    m.scope_.spawn(m.getxattr(m.begin(r), m.to_inode(node), name, size));
  }
  static void setxattr(fuse_req_t r, fuse_ino_t node, const char* name, const char* value, std::size_t size,
                       int flags) {
    Mount& m = self(r);
    m.scope_.spawn(m.setxattr(m.begin(r), m.to_inode(node), name, std::string(value, size), flags));
  }
  static void listxattr(fuse_req_t r, fuse_ino_t node, std::size_t size) {
    Mount& m = self(r);
    m.scope_.spawn(m.listxattr(m.begin(r), m.to_inode(node), size));
  }
  static void removexattr(fuse_req_t r, fuse_ino_t node, const char* name) {
    Mount& m = self(r);
    m.scope_.spawn(m.removexattr(m.begin(r), m.to_inode(node), name));
  }
  static void lseek(fuse_req_t r, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
    const auto file = self(r).find_open(info->fh);
    if (file == nullptr) return void(fuse_reply_err(r, EBADF));
    self(r).lseek(self(r).begin(r), *file, offset, whence);
  }
  static void fallocate(fuse_req_t r, fuse_ino_t, int mode, off_t offset, off_t length,
                        fuse_file_info* info) {
    const auto file = self(r).find_open(info->fh);
    if (file == nullptr) return void(fuse_reply_err(r, EBADF));
    self(r).scope_.spawn(self(r).fallocate(self(r).begin(r), file, mode, offset, length));
  }

  static fuse_lowlevel_ops table() {
    fuse_lowlevel_ops ops{};
    ops.init = init;
    ops.lookup = lookup;
    ops.forget = forget;
    ops.forget_multi = forget_multi;
    ops.getattr = getattr;
    ops.setattr = setattr;
    ops.readlink = readlink;
    ops.mknod = mknod;
    ops.mkdir = mkdir;
    ops.symlink = symlink;
    ops.unlink = unlink;
    ops.rmdir = rmdir;
    ops.rename = rename;
    ops.open = open;
    ops.create = create;
    ops.read = read;
    ops.write = write;
    ops.flush = flush;
    ops.release = release;
    ops.fsync = fsync;
    ops.opendir = opendir;
    ops.readdir = readdir;
    ops.readdirplus = readdirplus;
    ops.releasedir = releasedir;
    ops.fsyncdir = fsyncdir;
    ops.statfs = statfs;
    ops.getxattr = getxattr;
    ops.setxattr = setxattr;
    ops.listxattr = listxattr;
    ops.removexattr = removexattr;
    ops.lseek = lseek;
    ops.fallocate = fallocate;
    return ops;
  }
};

extern const fuse_lowlevel_ops kOperations;
const fuse_lowlevel_ops kOperations = Operations::table();

}  // namespace gradfs
