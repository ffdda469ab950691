#include "fs/worker/worker.h"

#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/log.h"
#include "fs/net/master_link.h"

namespace gradfs {
namespace {

constexpr std::uint32_t kPollWait_ms = 5000;
constexpr std::int64_t kPollTimeout_ns = 20 * kSecond_ns;
constexpr std::int64_t kMasterPatience_ns = 10 * kSecond_ns;
constexpr unsigned kBlockingThreads = 2;

// Images are handed to this user's processes and to root; the files' own permissions are checked by the
// kernel of the mount.
Result<void> check_peer(const CallContext& context) {
  if (context.peer_uid == 0 || context.peer_uid == static_cast<int>(::geteuid())) return ok();
  return Error(Errc::kAccess, "only root and the worker's user may ask for images");
}

std::uint64_t image_size(const UniqueFd& image) {
  struct stat info{};
  return ::fstat(image.get(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

}  // namespace

Worker::Worker(Executor& executor, Clock& clock, RpcClient& master, ImageStore& store, WorkerOptions options)
    : executor_(executor),
      clock_(clock),
      master_(master),
      store_(store),
      options_(std::move(options)),
      compute_(options_.compute_threads),
      blocking_(executor, kBlockingThreads),
      scope_(executor) {}

Worker::~Worker() = default;

Task<Result<wire::RegisterWorkerResponse>> Worker::register_with_master() {
  const std::string identity_file = options_.directory + "/worker.id";
  if (!worker_) {
    auto text = read_text_file(identity_file);
    if (text) worker_ = WorkerId{std::strtoull(text.value().c_str(), nullptr, 16)};
  }
  wire::RegisterWorkerRequest request;
  request.set_worker(worker_.value);
  request.mutable_address()->set_worker(worker_.value);
  request.mutable_address()->set_host(options_.host);
  request.mutable_address()->set_unix_socket(options_.unix_socket);
  request.mutable_address()->set_address(options_.tcp_address);
  GRADFS_CO_TRY(StoreUsage usage, store_.usage());
  request.set_capacity_bytes(usage.capacity_bytes);
  for (const auto& [binding, model] : models_) {
    auto* applied = request.add_applied();
    applied->set_binding(binding.value);
    applied->set_applied(model->watermark().value);
  }
  GRADFS_CO_TRY(auto response, co_await master_.call<rpc::RegisterWorker>(std::move(request), {}));
  worker_ = WorkerId{response.worker()};
  incarnation_ = response.incarnation();
  char text[20];
  std::snprintf(text, sizeof text, "%016llx\n", static_cast<unsigned long long>(worker_.value));
  GRADFS_CO_TRYV(replace_text_file(identity_file, text));
  co_return response;
}

Task<Result<void>> Worker::start(RpcServer& server) {
  for (;;) {
    auto hello = co_await greet_master(master_, "gradfs-worker", kMasterPatience_ns);
    if (hello) {
      auto registered = co_await register_with_master();
      if (registered) {
        co_await load_bindings(std::move(registered).value());
        break;
      }
      if (registered.error().code != Errc::kUnavailable && registered.error().code != Errc::kTimeout) {
        co_return std::move(registered).error();
      }
    }
    spdlog::warn("no master answers; trying on");
  }
  add_handlers(server);
  scope_.spawn(poll_loop());
  co_return ok();
}

Task<> Worker::load_bindings(wire::RegisterWorkerResponse registered) {
  for (const auto& state : registered.bindings()) {
    const BindingId binding{state.binding()};
    if (models_.contains(binding)) continue;
    const WorkerContext context{executor_, master_, store_, compute_, blocking_, worker_};
    auto model = co_await BoundModel::load(context, state);
    if (!model) {
      spdlog::error("{}: cannot go on: {}", state.path(), model.error().message());
      broken_[binding] = std::move(model).error();
      continue;
    }
    spdlog::info("{}: bound, at number {}", state.path(), model.value()->watermark().value);
    models_[binding] = std::move(model).value();
  }
}

Task<> Worker::poll_loop() {
  while (!stopping_) {
    wire::WorkerPollRequest request;
    request.set_worker(worker_.value);
    request.set_incarnation(incarnation_);
    request.set_wait_ms(kPollWait_ms);
    if (auto usage = store_.usage()) request.set_used_bytes(usage.value().used_bytes);
    for (const auto inode : dropped_) request.add_dropped(inode);
    for (const auto binding : dropped_bindings_) request.add_dropped_bindings(binding);
    const std::size_t told = dropped_.size();
    const std::size_t told_bindings = dropped_bindings_.size();
    auto commands =
        co_await master_.call<rpc::WorkerPoll>(std::move(request), {.timeout_ns = kPollTimeout_ns});
    if (stopping_) co_return;
    if (commands) {
      dropped_.erase(dropped_.begin(), dropped_.begin() + static_cast<std::ptrdiff_t>(told));
      dropped_bindings_.erase(dropped_bindings_.begin(),
                              dropped_bindings_.begin() + static_cast<std::ptrdiff_t>(told_bindings));
      co_await obey(std::move(commands).value());
      continue;
    }
    if (commands.error().code == Errc::kStaleEpoch) {  // the master has started anew
      auto registered = co_await register_with_master();
      if (registered) co_await load_bindings(std::move(registered).value());
      if (registered) continue;
    }
    spdlog::warn("poll: {}", commands.error().message());
    co_await clock_.sleep_ns(200 * kMillisecond_ns);
  }
}

Task<> Worker::obey(wire::WorkerPollResponse commands) {
  for (const auto inode : commands.drop_images()) {
    auto removed = store_.remove_image(InodeId{inode});
    if (removed) {
      dropped_.push_back(inode);
    } else {
      spdlog::warn("drop image: {}", removed.error().message());
    }
  }
  for (const auto binding : commands.drop_bindings()) co_await drop_binding(BindingId{binding});
  for (const auto inode : commands.commit_inodes()) co_await report_inode(InodeId{inode});
}

Task<> Worker::drop_binding(BindingId binding) {
  broken_.erase(binding);
  if (const auto found = models_.find(binding); found != models_.end()) {
    const auto model = found->second;
    models_.erase(found);
    co_await model->stop();
    auto removed = store_.remove_control(model->directory());
    if (!removed) spdlog::warn("drop binding: {}", removed.error().message());
  }
  dropped_bindings_.push_back(binding.value);
}

// A mount was lost with this file open for writing: what the image holds is what there is.
Task<> Worker::report_inode(InodeId inode) {
  auto image = store_.open_image(inode, false);
  struct stat info{};
  if (!image || ::fstat(image.value().get(), &info) != 0) co_return;
  wire::CloseRequest request;
  request.set_inode(inode.value);
  request.set_size(static_cast<std::uint64_t>(info.st_size));
  request.set_blocks(static_cast<std::uint64_t>(info.st_blocks));
  request.set_mtime_ns(std::int64_t{info.st_mtim.tv_sec} * kSecond_ns + info.st_mtim.tv_nsec);
  request.set_end_lease(true);
  auto closed = co_await master_.call<rpc::Close>(std::move(request), {});
  if (!closed) spdlog::warn("report of inode {}: {}", inode.value, closed.error().message());
}

Task<> Worker::stop() {
  stopping_ = true;
  scope_.close();
  const auto models = models_;
  for (const auto& [binding, model] : models) co_await model->stop();
}

void Worker::add_handlers(RpcServer& server) {
  server.handle<rpc::OpenImage>([this](wire::OpenImageRequest request, CallContext& context) {
    return open_image(std::move(request), context);
  });
  server.handle<rpc::DropImage>([this](wire::DropImageRequest request, CallContext& context) {
    return drop_image(std::move(request), context);
  });
  server.handle<rpc::Bind>(
      [this](wire::BindRequest request, CallContext& context) { return bind(std::move(request), context); });
  server.handle<rpc::Push>(
      [this](wire::PushRequest request, CallContext& context) { return push(std::move(request), context); });
  server.handle<rpc::Detach>([this](wire::DetachRequest request, CallContext& context) {
    return detach(std::move(request), context);
  });
  server.handle<rpc::ModelStatus>([this](wire::ModelStatusRequest request, CallContext& context) {
    return model_status(std::move(request), context);
  });
  server.handle<rpc::WorkerStatus>([this](const wire::Empty&, CallContext&) { return worker_status(); });
}

Task<Result<wire::OpenImageResponse>> Worker::open_image(wire::OpenImageRequest request,
                                                         CallContext& context) {
  GRADFS_CO_TRYV(check_peer(context));
  const bool create = request.create();
  if (create && !store_.has_image(InodeId{request.inode()})) {
    GRADFS_CO_TRYV(store_.check_room(std::max<std::uint64_t>(request.preallocate_bytes(), 1)));
  }
  GRADFS_CO_TRY(UniqueFd image, store_.open_image(InodeId{request.inode()}, create));
  if (request.preallocate_bytes() > 0) {
    Result<void> allocated = ok();
    co_await blocking_.run([&] { allocated = ImageStore::preallocate(image, request.preallocate_bytes()); });
    GRADFS_CO_TRYV(std::move(allocated));
  }
  wire::OpenImageResponse response;
  response.set_size(image_size(image));
  response.set_bounded(store_.private_tmpfs());
  context.reply_descriptors.push_back(std::move(image));
  co_return response;
}

Task<Result<wire::Empty>> Worker::drop_image(wire::DropImageRequest request, CallContext& context) {
  GRADFS_CO_TRYV(check_peer(context));
  GRADFS_CO_TRYV(store_.remove_image(InodeId{request.inode()}));
  co_return wire::Empty();
}

Result<std::shared_ptr<BoundModel>> Worker::find(std::uint64_t binding) const {
  if (const auto found = models_.find(BindingId{binding}); found != models_.end()) return found->second;
  if (const auto broken = broken_.find(BindingId{binding}); broken != broken_.end()) {
    return Error(Errc::kLost, "the model cannot go on: " + broken->second.message());
  }
  return Error(Errc::kNotFound, "no such binding on this worker");
}

// Makes what a binding needs besides the model: a fresh optimizer file and a control file.
Task<Result<wire::CommitBindRequest>> Worker::prepare_bind(const wire::BindRequest& request) {
  if (request.coprocessor() != "descent") {
    co_return Error(Errc::kInvalid, "no coprocessor '" + request.coprocessor() + "'; there is: descent");
  }
  GRADFS_CO_TRY(DescentConfig config, parse_config(request.config_text()));
  wire::LookupRequest lookup;
  lookup.set_parent(request.directory());
  lookup.set_name("model.safetensors");
  GRADFS_CO_TRY(auto model, co_await master_.call<rpc::Lookup>(std::move(lookup), {}));
  GRADFS_CO_TRY(UniqueFd image, store_.open_image(InodeId{model.attr().inode()}, false));
  GRADFS_CO_TRY(ModelLayout layout, ModelLayout::read(image.get()));
  GRADFS_CO_TRY(OptimizerLayout optimizer, OptimizerLayout::make(layout, config.optimizer));

  wire::AllocateInodeRequest allocate;
  allocate.set_worker(worker_.value);
  allocate.set_mode(0644);
  GRADFS_CO_TRY(auto allocated, co_await master_.call<rpc::AllocateInode>(std::move(allocate), {}));
  const InodeId optimizer_inode{allocated.attr().inode()};
  GRADFS_CO_TRY(UniqueFd state, store_.open_image(optimizer_inode, true));
  GRADFS_CO_TRY(UniqueFd control, store_.open_control(InodeId{request.directory()}, true));
  Result<void> made = ok();
  co_await blocking_.run([&] {
    made = optimizer.initialise(state.get());
    const ControlOptions options{.optimizer = config.optimizer,
                                 .thread_slots = static_cast<std::uint32_t>(compute_.threads()),
                                 .watermark = {},
                                 .version = 0};
    if (made) made = format_control(control.get(), layout, options);
  });
  if (!made) {
    GRADFS_CO_TRYV(store_.remove_image(optimizer_inode));
    GRADFS_CO_TRYV(store_.remove_control(InodeId{request.directory()}));
    co_return std::move(made).error();
  }
  wire::CoprocState coproc_state;
  coproc_state.set_config_text(request.config_text());
  coproc_state.set_optimizer(optimizer_inode.value);
  wire::CommitBindRequest out;
  out.set_directory(request.directory());
  out.set_coprocessor(request.coprocessor());
  out.set_optimizer(optimizer_inode.value);
  out.set_optimizer_size(optimizer.file_bytes());
  out.set_config_text(request.config_text());
  out.set_state(coproc_state.SerializeAsString());
  out.set_worker(worker_.value);
  co_return out;
}

Task<Result<wire::CommitBindResponse>> Worker::bind(wire::BindRequest request, CallContext& context) {
  GRADFS_CO_TRYV(check_peer(context));
  for (const auto& [id, model] : models_) {
    if (model->directory().value == request.directory())
      co_return Error(Errc::kExists, "the directory is bound");
  }
  GRADFS_CO_TRY(auto commit, co_await prepare_bind(request));
  GRADFS_CO_TRY(auto response, co_await master_.call<rpc::CommitBind>(std::move(commit), {}));
  wire::RegisterWorkerResponse added;
  *added.add_bindings() = response.binding();
  co_await load_bindings(std::move(added));
  auto model = find(response.binding().binding());
  if (!model) co_return std::move(model).error();
  co_return response;
}

Task<Result<wire::PushResponse>> Worker::push(wire::PushRequest request, CallContext& context) {
  GRADFS_CO_TRYV(check_peer(context));
  GRADFS_CO_TRY(auto model, find(request.binding()));
  if (context.is_retry) request.set_retry(true);
  co_return co_await model->push(std::move(request));
}

Task<Result<wire::Empty>> Worker::detach(wire::DetachRequest request, CallContext& context) {
  GRADFS_CO_TRYV(check_peer(context));
  for (const auto& [id, model] : std::map(models_)) {
    GRADFS_CO_TRYV(co_await model->detach(request.identity()));
  }
  co_return wire::Empty();
}

Task<Result<wire::ModelStatusResponse>> Worker::model_status(wire::ModelStatusRequest request, CallContext&) {
  GRADFS_CO_TRY(auto model, find(request.binding()));
  co_return model->status();
}

Task<Result<wire::WorkerStatusResponse>> Worker::worker_status() {
  GRADFS_CO_TRY(StoreUsage usage, store_.usage());
  wire::WorkerStatusResponse response;
  response.set_worker(worker_.value);
  response.set_capacity_bytes(usage.capacity_bytes);
  response.set_used_bytes(usage.used_bytes);
  response.set_images(usage.images);
  response.set_directory(store_.root());
  response.set_private_tmpfs(store_.private_tmpfs());
  co_return response;
}

}  // namespace gradfs
