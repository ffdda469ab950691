#include "client/mount/mount.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>

#include "client/mount/processes.h"
#include "fs/base/host.h"
#include "fs/base/log.h"
#include "fs/net/master_link.h"

namespace gradfs {

extern const fuse_lowlevel_ops kOperations;

namespace {

constexpr std::int64_t kGreetTimeout_ns = 5 * kSecond_ns;
constexpr std::int64_t kKeepAlive_ns = 3 * kSecond_ns;
constexpr double kAttrTimeout_s = 1.0;

// Passthrough came with Linux 6.9 and needs CAP_SYS_ADMIN.
bool kernel_may_pass_through() {
  utsname name{};
  int major = 0;
  int minor = 0;
  if (::uname(&name) != 0 || std::sscanf(name.release, "%d.%d", &major, &minor) != 2) return false;
  return ::geteuid() == 0 && (major > 6 || (major == 6 && minor >= 9));
}

}  // namespace

Mount::Mount(Executor& executor, Transport& transport, MountOptions options)
    : executor_(executor),
      transport_(transport),
      options_(std::move(options)),
      master_(executor, transport, options_.master, random_.next_u64()),
      scope_(executor),
      helper_(executor, 2),
      node_changed_(executor) {}

Mount::~Mount() = default;

Task<Result<void>> Mount::start(std::function<void()> ready) {
  ready_ = std::move(ready);
  auto hello = co_await greet_master(master_, "gradfs-mount", kGreetTimeout_ns);
  if (!hello) {
    co_return Error(Errc::kUnavailable, "no gradfs master answers at " + options_.master +
                                            ": start one ('fsctl cluster up'), or check the address");
  }
  GRADFS_CO_TRYV(co_await find_root());
  wire::OpenSessionRequest open;
  open.set_host(host_id());
  open.set_mount_point(options_.mount_point);
  GRADFS_CO_TRY(auto session, co_await ask_master<rpc::OpenSession>(std::move(open)));
  session_ = SessionId{session.session()};

  plain_ = options_.passthrough == PassthroughMode::kOff ||
           (options_.passthrough == PassthroughMode::kAuto && !kernel_may_pass_through());
  FuseDeviceOptions device;
  device.mount_point = options_.mount_point;
  device.source = options_.master + (options_.subpath.empty() ? "" : ":" + options_.subpath);
  device.kernel_options = options_.kernel_options;
  device.passthrough = !plain_;
  GRADFS_CO_TRYV(device_.mount(device, kOperations, this));
  device_number_ = device_of_mount(options_.mount_point);
  executor_.on_readable(device_.fd(), [this] { return serve(); });
  scope_.spawn(keep_session());
  co_return ok();
}

bool Mount::serve() {
  if (device_.serve_ready()) {
    if (ready_) std::exchange(ready_, nullptr)();
    return true;
  }
  if (on_unmounted) on_unmounted();
  return false;
}

Task<Result<void>> Mount::find_root() {
  std::string rest = options_.subpath;
  while (!rest.empty()) {
    const auto slash = rest.find('/');
    const std::string name = rest.substr(0, slash);
    rest = slash == std::string::npos ? "" : rest.substr(slash + 1);
    if (name.empty()) continue;
    wire::LookupRequest lookup;
    lookup.set_parent(root_.value);
    lookup.set_name(name);
    auto found = co_await ask_master<rpc::Lookup>(std::move(lookup));
    if (!found) co_return Error(found.error().code, options_.subpath + " in gradfs");
    root_ = InodeId{found.value().attr().inode()};
  }
  wire::InodeRequest request;
  request.set_inode(root_.value);
  GRADFS_CO_TRY(auto attr, co_await ask_master<rpc::GetAttr>(std::move(request)));
  if (attr.attr().type() != wire::DIRECTORY) co_return Error(Errc::kNotDirectory, options_.subpath);
  remember(attr.attr());
  node(root_).lookups = 1;
  co_return ok();
}

Task<> Mount::keep_session() {
  while (!stopping_) {
    co_await executor_.clock().sleep_ns(kKeepAlive_ns);
    if (stopping_) co_return;
    wire::SessionRequest request;
    request.set_session(session_.value);
    auto kept = co_await ask_master<rpc::KeepAlive>(std::move(request));
    if (kept || stopping_) continue;
    spdlog::warn("keep-alive: {}", kept.error().message());
    wire::OpenSessionRequest open;
    open.set_host(host_id());
    open.set_mount_point(options_.mount_point);
    open.set_session(session_.value);
    auto again = co_await ask_master<rpc::OpenSession>(std::move(open));
    if (again) session_ = SessionId{again.value().session()};
  }
}

Task<> Mount::stop() {
  stopping_ = true;
  device_.unmount();
  wire::SessionRequest request;
  request.set_session(session_.value);
  const CallOptions options{.timeout_ns = 2 * kSecond_ns, .retry = false};
  for (const auto& [handle, file] : std::unordered_map(open_files_)) {
    if (file->write) (void)co_await commit_attributes(file->inode, true);
  }
  auto closed = co_await master_.call<rpc::CloseSession>(std::move(request), options);
  if (!closed) spdlog::warn("close session: {}", closed.error().message());
  scope_.close();
  master_.close();
  for (auto& [path, client] : workers_) client->close();
}

wire::Role Mount::role_of(InodeId inode) const {
  const auto found = nodes_.find(inode);
  return found == nodes_.end() ? wire::ROLE_NONE : found->second.attr.role();
}

BindingId Mount::binding_of(InodeId inode) const {
  const auto found = nodes_.find(inode);
  return BindingId{found == nodes_.end() ? 0 : found->second.attr.binding()};
}

// Takes over what the master says, but for what only the image knows while the file is open for writing.
void Mount::remember(const wire::Attr& attr) {
  Node& known = node(InodeId{attr.inode()});
  known.attr = attr;
  if (known.write_opens == 0) {
    known.committed_size = attr.size();
    known.committed_mtime_ns = attr.mtime_ns();
  }
  if (attr.role() == wire::MODEL) models_[BindingId{attr.binding()}] = InodeId{attr.inode()};
}

void Mount::count_lookup(const wire::Attr& attr, InodeId parent, const std::string& name) {
  remember(attr);
  Node& known = node(InodeId{attr.inode()});
  ++known.lookups;
  known.parent = parent;
  known.name = name;
}

void Mount::forget(InodeId inode, std::uint64_t lookups) {
  const auto found = nodes_.find(inode);
  if (found == nodes_.end()) return;
  found->second.lookups -= std::min(lookups, found->second.lookups);
  forget_if_unused(inode);
}

void Mount::forget_if_unused(InodeId inode) {
  const auto found = nodes_.find(inode);
  if (found == nodes_.end() || inode == root_) return;
  const Node& known = found->second;
  if (known.lookups > 0 || known.opens > 0 || known.opening || known.frozen > 0) return;
  if (known.attr.role() == wire::MODEL) models_.erase(BindingId{known.attr.binding()});
  nodes_.erase(found);
}

RpcClient& Mount::worker(const wire::WorkerAddress& address) {
  auto& client = workers_[address.unix_socket()];
  if (client == nullptr) {
    client = std::make_unique<RpcClient>(executor_, transport_, address.unix_socket(), random_.next_u64());
  }
  return *client;
}

// The home of a binding is the home of its model.
Task<Result<RpcClient*>> Mount::worker_of_binding(BindingId binding) {
  if (const auto found = addresses_.find(binding.value); found != addresses_.end())
    co_return &worker(found->second);
  wire::BindingRequest ask;
  ask.set_binding(binding.value);
  GRADFS_CO_TRY(auto state, co_await ask_master<rpc::GetBinding>(std::move(ask)));
  wire::OpenRequest open;
  open.set_inode(state.binding().model());
  open.set_session(session_.value);
  GRADFS_CO_TRY(auto model, co_await ask_master<rpc::Open>(std::move(open)));
  addresses_[binding.value] = model.home();
  co_return &worker(model.home());
}

void Mount::reply_error(Request request, const Error& error) {
  if (error.code == Errc::kUnavailable || error.code == Errc::kCorrupt || error.code == Errc::kIo) {
    spdlog::warn("answered EIO: {}", error.message());
  }
  request.error(to_errno(error.code));
}

double Mount::attr_timeout(const wire::Attr& attr) const {
  switch (attr.role()) {
    case wire::ROLE_NONE:
    case wire::SLOT:
      return kAttrTimeout_s;
    default:
      return 0;
  }
}

fuse_entry_param Mount::entry_of(const wire::Attr& attr, InodeId parent) {
  fuse_entry_param entry{};
  entry.ino = to_node(InodeId{attr.inode()});
  entry.attr = stat_of(attr);
  entry.attr_timeout = attr_timeout(attr);
  // Names in a model directory come and go without the kernel: it asks each time.
  entry.entry_timeout = role_of(parent) == wire::ROLE_NONE ? kAttrTimeout_s : 0;
  return entry;
}

struct stat Mount::stat_of(const wire::Attr& attr) {
  struct stat out{};
  const auto set_time = [](timespec& to, std::int64_t ns) {
    to.tv_sec = ns / kSecond_ns;
    to.tv_nsec = ns % kSecond_ns;
    if (to.tv_nsec < 0) {
      to.tv_nsec += kSecond_ns;
      --to.tv_sec;
    }
  };
  out.st_ino = attr.inode();
  out.st_mode = attr.mode();
  switch (attr.type()) {
    case wire::DIRECTORY:
      out.st_mode |= S_IFDIR;
      break;
    case wire::SYMLINK:
      out.st_mode |= S_IFLNK;
      break;
    default:
      out.st_mode |= S_IFREG;
      break;
  }
  out.st_nlink = attr.link_count();
  out.st_uid = attr.uid();
  out.st_gid = attr.gid();
  out.st_size = static_cast<off_t>(attr.type() == wire::SYMLINK ? attr.symlink_target().size() : attr.size());
  out.st_blocks = attr.has_blocks() ? static_cast<blkcnt_t>(attr.blocks()) : (out.st_size + 511) / 512;
  out.st_blksize = 4096;
  set_time(out.st_atim, attr.atime_ns());
  set_time(out.st_mtim, attr.mtime_ns());
  set_time(out.st_ctim, attr.ctime_ns());
  const auto found = nodes_.find(InodeId{attr.inode()});
  if (found == nodes_.end()) return out;
  const Node& known = found->second;
  struct stat image{};
  if (known.image.valid() && ::fstat(known.image.get(), &image) == 0) {
    out.st_size = image.st_size;
    out.st_blocks = image.st_blocks;
    out.st_mtim = image.st_mtim;
  }
  if (known.unlinked) out.st_nlink = 0;
  return out;
}

}  // namespace gradfs
