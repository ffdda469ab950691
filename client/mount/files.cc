#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/mount/mount.h"
#include "client/mount/processes.h"
#include "fs/base/log.h"

namespace gradfs {
namespace {

constexpr std::int64_t kWatchCloser_ns = 20 * kMillisecond_ns;

bool wants_write(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

std::int64_t mtime_of(const struct stat& info) {
  return std::int64_t{info.st_mtim.tv_sec} * kSecond_ns + info.st_mtim.tv_nsec;
}

}  // namespace

std::shared_ptr<OpenFile> Mount::find_open(std::uint64_t handle) {
  const auto found = open_files_.find(handle);
  return found == open_files_.end() ? nullptr : found->second;
}

int Mount::image_fd(const OpenFile& file) const {
  if (file.staging_image.valid()) return file.staging_image.get();
  const auto found = nodes_.find(file.inode);
  return found == nodes_.end() ? -1 : found->second.image.get();
}

// Makes sure that the node holds its image, and counts an open; drop_open() gives it back.
Task<Result<void>> Mount::prepare_image(InodeId inode, bool write) {
  // The kernel looks a stale name up again: by then the file that was landing has left it.
  const bool is_landing = write && node(inode).frozen > 0 && role_of(inode) == wire::GRADIENT;
  while (node(inode).opening || (write && node(inode).frozen > 0)) co_await node_changed_.wait(-1);
  if (is_landing) co_return Error(Errc::kStaleFile);
  const bool first_write = write && node(inode).write_opens == 0;
  if (!node(inode).image.valid() || first_write) {
    node(inode).opening = true;
    wire::OpenRequest ask;
    ask.set_inode(inode.value);
    ask.set_session(session_.value);
    ask.set_write(write);
    auto opened = co_await ask_master<rpc::Open>(std::move(ask));
    Result<void> result = ok();
    std::vector<UniqueFd> descriptors;
    if (!opened) {
      result = std::move(opened).error();
    } else if (!node(inode).image.valid()) {
      wire::OpenImageRequest open;
      open.set_inode(inode.value);
      open.set_create(opened.value().attr().size() == 0);
      const CallOptions options{.timeout_ns = options_.timeout_ns, .descriptors = &descriptors};
      RpcClient& home = worker(opened.value().home());
      auto image = co_await home.call<rpc::OpenImage>(std::move(open), options);
      if (image) note_bounds(home, image.value());
      if (!image) result = std::move(image).error();
      if (result && descriptors.size() != 1) result = Error(Errc::kCorrupt, "the worker sent no image");
    }
    Node& known = node(inode);
    known.opening = false;
    node_changed_.notify_all();
    if (!result) co_return result;
    if (!descriptors.empty()) {
      known.image = std::move(descriptors.front());
      known.attr = opened.value().attr();
      known.committed_size = known.attr.size();
      known.committed_mtime_ns = known.attr.mtime_ns();
      // While it is open its image tells the time; before that the master did.
      struct stat info{};
      const std::int64_t mtime_ns = known.attr.mtime_ns();
      if (::fstat(known.image.get(), &info) == 0 && mtime_of(info) != mtime_ns) {
        const timespec times[2] = {{0, UTIME_OMIT}, {mtime_ns / kSecond_ns, mtime_ns % kSecond_ns}};
        (void)::futimens(known.image.get(), times);
      }
    }
  }
  ++node(inode).opens;
  if (write) ++node(inode).write_opens;
  co_return ok();
}

void Mount::drop_open(InodeId inode, bool write) {
  const auto found = nodes_.find(inode);
  if (found == nodes_.end()) return;
  Node& known = found->second;
  --known.opens;
  if (write) --known.write_opens;
  if (known.opens > 0) return;
  if (known.backing_id > 0) device_.unregister_backing(std::exchange(known.backing_id, 0));
  if (!known.opening) known.image.reset();
  forget_if_unused(inode);
}

// The image is there and the open is counted: how is it answered?
Result<OpenReply> Mount::add_open(InodeId inode, std::shared_ptr<OpenFile> file) {
  Node& known = node(inode);
  OpenReply reply;
  reply.handle = next_handle_++;
  if (!passthrough_known_) {
    passthrough_known_ = true;
    const bool possible = !plain_ && unbounded_ == nullptr;
    auto id = possible ? device_.register_backing(known.image) : Result<int>(Error(Errc::kNotSupported));
    passthrough_ = static_cast<bool>(id);
    if (id) known.backing_id = id.value();
    if (!id && options_.passthrough == PassthroughMode::kOn) {
      passthrough_known_ = false;
      return std::move(id).error();
    }
    spdlog::info("data path: {}", passthrough_ ? "passthrough" : "ordinary FUSE");
  }
  if (passthrough_) {
    if (known.backing_id == 0) {
      GRADFS_TRY(known.backing_id, device_.register_backing(known.image));
    }
    reply.backing_id = known.backing_id;
  }
  // An assignment's writes come here while readers stay mapped; a new gradient's go straight to its image.
  reply.direct_io = file->staging_image.valid() || (!passthrough_ && (file->flags & O_ACCMODE) == O_WRONLY &&
                                                    known.attr.role() == wire::GRADIENT);
  reply.no_flush = !file->write;
  open_files_[reply.handle] = std::move(file);
  return reply;
}

// Texts have no image: the daemon reads and writes the handle's copy.
OpenReply Mount::add_text_open(std::shared_ptr<OpenFile> file) {
  ++node(file->inode).opens;
  if (file->write) ++node(file->inode).write_opens;
  const OpenReply reply{.handle = next_handle_++, .direct_io = true, .no_flush = !file->write};
  open_files_[reply.handle] = std::move(file);
  return reply;
}

Task<> Mount::open(Request request, InodeId inode, int flags) {
  if (!nodes_.contains(inode)) co_return void(request.error(ENOENT));
  auto file = std::make_shared<OpenFile>();
  file->inode = inode;
  file->flags = flags;
  file->write = wants_write(flags);
  if (file->write) file->opener = process_state(request.pid()).group;
  auto special = co_await open_special(file);
  if (!special) co_return reply_error(request, special.error());
  const wire::Attr& attr = node(inode).attr;
  if (is_text(attr.role(), attr)) {
    const OpenReply reply = add_text_open(std::move(file));
    if (!request.opened(reply)) close_handle(reply.handle);
    co_return;
  }
  const bool write = file->write && !file->staging_image.valid();
  if (file->staging_image.valid()) file->write = true;
  auto prepared = co_await prepare_image(inode, write);
  if (!prepared) co_return reply_error(request, prepared.error());
  if (write && (flags & O_TRUNC) != 0 && ::ftruncate(node(inode).image.get(), 0) != 0) {
    drop_open(inode, write);
    co_return reply_error(request, errno_error("ftruncate"));
  }
  auto reply = add_open(inode, std::move(file));
  if (!reply) {
    drop_open(inode, write);
    co_return reply_error(request, reply.error());
  }
  if (!request.opened(reply.value())) close_handle(reply.value().handle);
}

Task<> Mount::create(Request request, InodeId parent, std::string name, mode_t mode, int flags) {
  auto file = std::make_shared<OpenFile>();
  file->flags = flags;
  file->write = wants_write(flags);
  file->opener = process_state(request.pid()).group;
  wire::CreateRequest ask;
  ask.set_parent(parent.value);
  ask.set_name(name);
  ask.set_type(wire::REGULAR);
  ask.set_mode(mode & 07777);
  ask.set_uid(request.uid());
  ask.set_gid(request.gid());
  ask.set_session(session_.value);
  ask.set_open_for_write(file->write);
  ask.set_exclusive((flags & O_EXCL) != 0);
  auto made = co_await ask_master<rpc::Create>(std::move(ask));
  if (!made) co_return reply_error(request, made.error());
  const wire::Attr attr = made.value().attr();
  const InodeId inode{attr.inode()};
  file->inode = inode;
  count_lookup(attr, parent, name);
  if (is_text(attr.role(), attr)) {  // descent.toml, made anew
    file->dirty = file->write;
    const OpenReply reply = add_text_open(std::move(file));
    if (request.created(entry_of(attr, parent), reply)) co_return;
    close_handle(reply.handle);
    co_return forget(inode, 1);
  }
  if (!node(inode).image.valid() && !node(inode).opening) {  // the create has recorded the lease already
    node(inode).opening = true;
    wire::OpenImageRequest open;
    open.set_inode(inode.value);
    open.set_create(attr.size() == 0);
    std::vector<UniqueFd> descriptors;
    const CallOptions options{.timeout_ns = options_.timeout_ns, .descriptors = &descriptors};
    RpcClient& home = worker(made.value().home());
    auto image = co_await home.call<rpc::OpenImage>(std::move(open), options);
    if (image) note_bounds(home, image.value());
    node(inode).opening = false;
    if (image && descriptors.size() == 1) node(inode).image = std::move(descriptors.front());
    node_changed_.notify_all();
    if (!image) {
      forget(inode, 1);
      co_return reply_error(request, image.error());
    }
    ++node(inode).opens;
    if (file->write) ++node(inode).write_opens;
  } else if (auto prepared = co_await prepare_image(inode, file->write); !prepared) {
    forget(inode, 1);
    co_return reply_error(request, prepared.error());
  }
  const bool write = file->write;
  auto reply = add_open(inode, std::move(file));
  if (!reply) {
    drop_open(inode, write);
    forget(inode, 1);
    co_return reply_error(request, reply.error());
  }
  if (request.created(entry_of(attr, parent), reply.value())) co_return;
  close_handle(reply.value().handle);
  forget(inode, 1);
}

void Mount::read(Request request, OpenFile& file, std::size_t size, off_t offset) {
  const auto found = nodes_.find(file.inode);
  if (found != nodes_.end() && is_text(found->second.attr.role(), found->second.attr)) {
    const auto from = std::min(static_cast<std::size_t>(offset), file.text.size());
    return void(request.bytes(file.text.data() + from, std::min(size, file.text.size() - from)));
  }
  fuse_bufvec buffer{};
  buffer.count = 1;
  buffer.buf[0].size = size;
  buffer.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
  buffer.buf[0].fd = image_fd(file);
  buffer.buf[0].pos = offset;
  request.data(&buffer);
}

void Mount::lseek(Request request, OpenFile& file, off_t offset, int whence) {
  const off_t at = ::lseek(image_fd(file), offset, whence);
  if (at < 0) return void(request.error(errno));
  request.offset(at);
}

// Size and times go to the master when they differ from what it knows.
Task<Result<void>> Mount::commit_attributes(InodeId inode, bool end_lease) {
  const auto found = nodes_.find(inode);
  if (found == nodes_.end() || found->second.unlinked) co_return ok();
  Node& known = found->second;
  struct stat info{};
  if (!known.image.valid() || ::fstat(known.image.get(), &info) != 0) co_return ok();
  const auto size = static_cast<std::uint64_t>(info.st_size);
  const std::int64_t mtime_ns = mtime_of(info);
  if (!end_lease && size == known.committed_size && mtime_ns == known.committed_mtime_ns) co_return ok();
  known.committed_size = size;
  known.committed_mtime_ns = mtime_ns;
  known.attr.set_size(size);
  known.attr.set_blocks(static_cast<std::uint64_t>(info.st_blocks));
  known.attr.set_mtime_ns(mtime_ns);
  wire::CloseRequest close;
  close.set_inode(inode.value);
  close.set_session(session_.value);
  close.set_size(size);
  close.set_blocks(static_cast<std::uint64_t>(info.st_blocks));
  close.set_mtime_ns(mtime_ns);
  close.set_end_lease(end_lease);
  auto closed = co_await ask_master<rpc::Close>(std::move(close));
  if (!closed && closed.error().code != Errc::kNotFound) co_return std::move(closed).error();
  co_return ok();
}

Task<> Mount::flush(Request request, std::uint64_t handle) {
  const auto file = find_open(handle);
  if (file == nullptr || !file->write) co_return void(request.error(0));
  if (is_drop(*file)) {
    const Landing landing = co_await decide(file, request.pid());
    if (landing == Landing::kNow) co_return co_await land_and_reply(request, file);
    co_return void(request.error(0));
  }
  scope_.spawn(release_the_dying(request));
  auto committed = co_await commit_attributes(file->inode, false);
  if (!committed) co_return reply_error(request, committed.error());
  request.error(0);
}

// A process that is being killed closes its files when its signals are spent, so no interrupt comes: it must
// not wait for a master that is away. What it closes goes on being committed.
Task<> Mount::release_the_dying(Request request) {
  for (;;) {
    co_await executor_.clock().sleep_ns(kWatchCloser_ns);
    if (request.answered()) co_return;
    const ProcessState state = process_state(request.pid());
    if (state.group == 0 || state.signal != 0) co_return void(request.error(0));
  }
}

Task<> Mount::fsync(Request request, std::uint64_t handle) {
  const auto file = find_open(handle);
  if (file == nullptr) co_return void(request.error(EBADF));
  const wire::Role role = role_of(file->inode);
  if (role == wire::SLOT && file->write) co_return co_await sync_slot(request, file->inode);
  if (role == wire::CONFIG && file->dirty) co_return co_await land_and_reply(request, file);
  if (file->write) {
    auto committed = co_await commit_attributes(file->inode, false);
    if (!committed) co_return reply_error(request, committed.error());
  }
  auto synced = co_await ask_master<rpc::Sync>(wire::Empty());
  if (!synced) co_return reply_error(request, synced.error());
  request.error(0);
}

Task<> Mount::fsyncdir(Request request) {
  auto synced = co_await ask_master<rpc::Sync>(wire::Empty());
  if (!synced) co_return reply_error(request, synced.error());
  request.error(0);
}

void Mount::release(Request request, std::uint64_t handle) {
  request.error(0);
  close_handle(handle);
}

// Also for an open whose caller was killed before it got the answer: the kernel sends no RELEASE then.
void Mount::close_handle(std::uint64_t handle) {
  const auto file = find_open(handle);
  open_files_.erase(handle);
  if (file != nullptr) scope_.spawn(finish_release(file));
}

// Nobody waits for this any more: land what no FLUSH decided about, tell the master the last word, let go.
Task<> Mount::finish_release(std::shared_ptr<OpenFile> file) {
  const InodeId inode = file->inode;
  const bool counted_write = file->write && !file->staging_image.valid();
  const bool undecided = file->write && is_drop(*file) && !file->landed;
  const bool last_write = counted_write && nodes_.contains(inode) && node(inode).write_opens == 1;
  if (last_write && !is_text(role_of(inode), node(inode).attr)) {
    auto committed = co_await commit_attributes(inode, true);
    if (!committed) spdlog::warn("close of inode {}: {}", inode.value, committed.error().message());
  }
  if (undecided) {
    ++node(inode).lookups;  // the name and the binding are needed until the end
    if (node(inode).opens == 1 && node(inode).backing_id > 0) {
      device_.unregister_backing(std::exchange(node(inode).backing_id, 0));
    }
    const bool mapped = role_of(inode) == wire::GRADIENT && !co_await wait_unmapped(inode);
    if (file->writer_killed) {
      co_await reject(file, "its writer was killed before it closed the file");
    } else if (mapped) {
      co_await reject(file,
                      "still mapped for writing after its last close: use slots/, or write it elsewhere and "
                      "rename it in");
    } else {
      auto landed = co_await land(file);
      if (!landed) spdlog::info("inode {} landed at release: {}", inode.value, landed.error().message());
    }
    if (nodes_.contains(inode)) --node(inode).lookups;
  }
  drop_open(inode, counted_write);
}

}  // namespace gradfs
