#include "client/lib/filesystem.h"

#include <sys/stat.h>
#include <unistd.h>

#include "client/lib/endpoints.h"
#include "fs/base/host.h"

namespace gradfs {
namespace {

constexpr std::uint32_t kListPage = 1000;
constexpr std::size_t kListMax = 1'000'000;
constexpr int kDepthMax = 1000;

std::uint32_t mode_with_umask(std::uint32_t mode) {
  const mode_t mask = ::umask(022);
  ::umask(mask);
  return mode & ~static_cast<std::uint32_t>(mask);
}

wire::CreateRequest create_request(InodeId parent, const std::string& name, wire::FileType type,
                                   std::uint32_t mode) {
  wire::CreateRequest request;
  request.set_parent(parent.value);
  request.set_name(name);
  request.set_type(type);
  request.set_mode(mode_with_umask(mode));
  request.set_uid(::geteuid());
  request.set_gid(::getegid());
  request.set_exclusive(true);
  return request;
}

}  // namespace

struct Filesystem::Impl {
  Impl(Executor& e, Transport& t, std::string a, std::string p)
      : executor(e),
        transport(t),
        address(std::move(a)),
        program(std::move(p)),
        master(e, t, address, random.next_u64()) {}

  Executor& executor;
  Transport& transport;
  const std::string address;
  const std::string program;
  SystemRandom random;
  RpcClient master;
  struct Worker {
    enum State { kNew, kAnswers, kSilent };
    std::unique_ptr<RpcClient> client;
    State state = kNew;
  };
  std::map<std::string, Worker> workers;  // by endpoint
  std::uint64_t session = 0;
  std::int64_t lease_ns = 0;
  std::int64_t renewed_ns = 0;
};

Error about(const std::string& what, const Error& error) {
  const bool says_all = error.code == Errc::kUnavailable && !error.detail.empty();
  return {error.code, what + ": " + (says_all ? error.detail : error.message())};
}

Filesystem::Filesystem(Executor& executor, Transport& transport, std::string address, std::string program)
    : impl_(std::make_unique<Impl>(executor, transport, std::move(address), std::move(program))) {}

Filesystem::~Filesystem() = default;

RpcClient& Filesystem::master() { return impl_->master; }
const std::string& Filesystem::address() const { return impl_->address; }
Executor& Filesystem::executor() { return impl_->executor; }

Task<Result<wire::HelloResponse>> Filesystem::connect(std::int64_t timeout_ns) {
  return connect_master(impl_->master, impl_->address, impl_->program, timeout_ns);
}

Task<> Filesystem::disconnect() {
  if (impl_->session == 0) co_return;
  wire::SessionRequest request;
  request.set_session(impl_->session);
  impl_->session = 0;
  const CallOptions options{.timeout_ns = 2 * kSecond_ns};
  (void)co_await impl_->master.call<rpc::CloseSession>(std::move(request),
                                                       options);  // else its lease runs out
}

Task<Result<RpcClient*>> Filesystem::worker(wire::WorkerAddress address) {
  GRADFS_CO_TRY(const std::string endpoint, worker_endpoint(address));
  Impl::Worker& worker = impl_->workers[endpoint];
  if (worker.client == nullptr) {
    worker.client =
        std::make_unique<RpcClient>(impl_->executor, impl_->transport, endpoint, impl_->random.next_u64());
  }
  if (worker.state == Impl::Worker::kNew) {
    const CallOptions options{.timeout_ns = kConnectTimeout_ns};
    const auto answer = co_await worker.client->call<rpc::WorkerStatus>(wire::Empty(), options);
    worker.state = answer ? Impl::Worker::kAnswers : Impl::Worker::kSilent;
  }
  if (worker.state != Impl::Worker::kAnswers) {
    co_return Error(
        Errc::kUnavailable,
        "the worker at " + endpoint + " does not answer: 'fsctl cluster up' starts it, if it has ended");
  }
  co_return worker.client.get();
}

Task<Result<wire::WorkerAddress>> Filesystem::worker_address(WorkerId worker) {
  GRADFS_CO_TRY(auto status, co_await call<rpc::ClusterStatus>(wire::Empty(), "status of the cluster"));
  for (const wire::WorkerInfo& info : status.workers()) {
    if (info.address().worker() == worker.value) co_return info.address();
  }
  co_return Error(Errc::kUnavailable,
                  "the worker that holds the image is not known to the master: see 'fsctl status'");
}

Task<Result<wire::Attr>> Filesystem::attributes(InodeId inode) {
  wire::InodeRequest request;
  request.set_inode(inode.value);
  GRADFS_CO_TRY(auto response,
                co_await call<rpc::GetAttr>(std::move(request), "inode " + std::to_string(inode.value)));
  co_return response.attr();
}

Task<Result<std::vector<wire::DirectoryEntry>>> Filesystem::list(InodeId directory) {
  std::vector<wire::DirectoryEntry> entries;
  std::string after;
  for (;;) {
    wire::ReadDirRequest request;
    request.set_inode(directory.value);
    request.set_after(after);
    request.set_limit(kListPage);
    GRADFS_CO_TRY(auto page, co_await call<rpc::ReadDir>(std::move(request), "list"));
    for (wire::DirectoryEntry& entry : *page.mutable_entries()) entries.push_back(std::move(entry));
    if (page.end() || page.entries().empty()) co_return entries;
    if (entries.size() > kListMax)
      co_return Error(Errc::kTooBig, "the directory has more than a million entries");
    after = entries.back().name();
  }
}

Task<Result<wire::Attr>> Filesystem::make_directory(InodeId parent, std::string name) {
  GRADFS_CO_TRY(auto made,
                co_await call<rpc::Create>(create_request(parent, name, wire::DIRECTORY, 0777), name));
  co_return made.attr();
}

Task<Result<std::uint64_t>> Filesystem::session() {
  if (impl_->session == 0) {
    wire::OpenSessionRequest request;
    request.set_host(host_id());
    GRADFS_CO_TRY(auto opened, co_await call<rpc::OpenSession>(std::move(request), "open a session"));
    impl_->session = opened.session();
    impl_->lease_ns = std::int64_t{opened.lease_ms()} * kMillisecond_ns;
    impl_->renewed_ns = impl_->executor.clock().now_ns();
  }
  co_return impl_->session;
}

Task<Result<void>> Filesystem::keep_alive() {
  const std::int64_t now_ns = impl_->executor.clock().now_ns();
  if (impl_->session == 0 || now_ns - impl_->renewed_ns < impl_->lease_ns / 4) co_return ok();
  wire::SessionRequest request;
  request.set_session(impl_->session);
  GRADFS_CO_TRYV(co_await call<rpc::KeepAlive>(std::move(request), "keep the session"));
  impl_->renewed_ns = now_ns;
  co_return ok();
}

Task<Result<UniqueFd>> Filesystem::fetch_image(wire::WorkerAddress home, InodeId inode, bool create,
                                               std::uint64_t bytes) {
  if (!is_local(home)) {
    co_return Error(Errc::kNotSupported,
                    "the worker that holds the image is on another host: run this command there");
  }
  GRADFS_CO_TRY(RpcClient * client, co_await worker(home));
  wire::OpenImageRequest request;
  request.set_inode(inode.value);
  request.set_create(create);
  request.set_preallocate_bytes(bytes);
  std::vector<UniqueFd> descriptors;
  const CallOptions options{.timeout_ns = kCallTimeout_ns, .descriptors = &descriptors};
  auto reply = co_await client->call<rpc::OpenImage>(std::move(request), options);
  if (!reply) co_return reply.error();
  if (descriptors.size() != 1) co_return Error(Errc::kCorrupt, "the worker sent no descriptor");
  co_return std::move(descriptors.front());
}

Task<Result<NewFile>> Filesystem::create_file(InodeId parent, std::string name, std::uint64_t bytes) {
  GRADFS_CO_TRY(const std::uint64_t writer, co_await session());
  wire::CreateRequest request = create_request(parent, name, wire::REGULAR, 0666);
  request.set_session(writer);
  request.set_open_for_write(true);
  GRADFS_CO_TRY(auto made, co_await call<rpc::Create>(std::move(request), name));
  NewFile file;
  file.attr = made.attr();
  file.home = made.home();
  auto image = co_await fetch_image(file.home, file.inode(), true, bytes);
  if (!image) {
    const Error error = about(name, image.error());
    GRADFS_CO_TRYV(co_await remove_tree(parent, name));
    co_return error;
  }
  file.image = std::move(image).value();
  co_return file;
}

Task<Result<void>> Filesystem::close_file(NewFile file) {
  struct stat info{};
  if (::fstat(file.image.get(), &info) != 0) co_return errno_error("fstat of an image");
  file.image.reset();
  wire::CloseRequest request;
  request.set_inode(file.inode().value);
  request.set_session(impl_->session);
  request.set_size(static_cast<std::uint64_t>(info.st_size));
  request.set_mtime_ns(impl_->executor.clock().wall_ns());
  request.set_end_lease(true);
  GRADFS_CO_TRYV(co_await call<rpc::Close>(std::move(request), "close"));
  co_return ok();
}

Task<Result<UniqueFd>> Filesystem::open_image(wire::Attr attr) {
  GRADFS_CO_TRY(auto home, co_await worker_address(WorkerId{attr.worker()}));
  co_return co_await fetch_image(std::move(home), InodeId{attr.inode()}, false, 0);
}

Task<Result<void>> Filesystem::rename(InodeId parent, std::string name, InodeId new_parent,
                                      std::string new_name, bool no_replace) {
  wire::RenameRequest request;
  request.set_parent(parent.value);
  request.set_name(name);
  request.set_new_parent(new_parent.value);
  request.set_new_name(new_name);
  request.set_no_replace(no_replace);
  GRADFS_CO_TRYV(co_await call<rpc::Rename>(std::move(request), new_name));
  co_return ok();
}

Task<Result<void>> Filesystem::remove_below(InodeId directory, int depth) {
  if (depth > kDepthMax) co_return Error(Errc::kTooBig, "directories are nested too deep to remove");
  GRADFS_CO_TRY(auto entries, co_await list(directory));
  for (const wire::DirectoryEntry& entry : entries) {
    wire::RemoveRequest request;
    request.set_parent(directory.value);
    request.set_name(entry.name());
    if (entry.attr().type() == wire::DIRECTORY) {
      GRADFS_CO_TRYV(co_await remove_below(InodeId{entry.attr().inode()}, depth + 1));
      GRADFS_CO_TRYV(co_await call<rpc::Rmdir>(std::move(request), entry.name()));
    } else {
      GRADFS_CO_TRYV(co_await call<rpc::Unlink>(std::move(request), entry.name()));
    }
  }
  co_return ok();
}

Task<Result<void>> Filesystem::remove_tree(InodeId parent, std::string name) {
  wire::LookupRequest lookup;
  lookup.set_parent(parent.value);
  lookup.set_name(name);
  GRADFS_CO_TRY(auto found, co_await call<rpc::Lookup>(std::move(lookup), name));
  wire::RemoveRequest request;
  request.set_parent(parent.value);
  request.set_name(name);
  if (found.attr().type() != wire::DIRECTORY) {
    GRADFS_CO_TRYV(co_await call<rpc::Unlink>(std::move(request), name));
    co_return ok();
  }
  GRADFS_CO_TRYV(co_await remove_below(InodeId{found.attr().inode()}, 0));
  GRADFS_CO_TRYV(co_await call<rpc::Rmdir>(std::move(request), name));
  co_return ok();
}

Task<Result<std::string>> Filesystem::get_xattr(InodeId inode, std::string name) {
  wire::XattrRequest request;
  request.set_inode(inode.value);
  request.set_name(name);
  GRADFS_CO_TRY(auto response, co_await call<rpc::GetXattr>(std::move(request), name));
  co_return response.value();
}

Task<Result<void>> Filesystem::set_xattr(InodeId inode, std::string name, std::string value) {
  wire::XattrRequest request;
  request.set_inode(inode.value);
  request.set_name(name);
  request.set_value(value);
  GRADFS_CO_TRYV(co_await call<rpc::SetXattr>(std::move(request), name));
  co_return ok();
}

}  // namespace gradfs
