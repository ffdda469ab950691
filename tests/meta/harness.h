// A namespace with a journal over a store of the test's choice.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "fs/meta/journal.h"
#include "fs/meta/keys.h"
#include "fs/wire/methods.h"

namespace gradfs {

constexpr std::uint64_t kRoot = kRootInode.value;

template <class T>
Errc code_of(const Result<T>& result) {
  return result ? Errc::kOk : result.error().code;
}

// All rows, for comparisons.
inline std::vector<std::pair<std::string, std::string>> dump(Store& store) {
  std::vector<std::pair<std::string, std::string>> out;
  const auto rows = store.scan("", "\xff", static_cast<std::size_t>(-1)).value();
  for (const auto& row : rows) out.emplace_back(row.key, row.value);
  return out;
}

class Meta {
 public:
  enum class Kind { kMemory, kRocks };

  explicit Meta(Kind kind) : kind_(kind) {
    std::string pattern = std::filesystem::temp_directory_path() / "gradfs-meta-XXXXXX";
    if (kind == Kind::kRocks) directory_ = ::mkdtemp(pattern.data());
    if (kind == Kind::kMemory) store_ = std::make_unique<MemoryStore>();
    start();
    worker = register_worker();
  }
  ~Meta() {
    journal_.reset();
    names_.reset();
    store_.reset();
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  // As after a restart of the master.
  void start() {
    journal_.reset();
    names_.reset();
    if (kind_ == Kind::kRocks) {
      store_.reset();
      store_ = open_rocks_store(directory_ + "/meta").value();
    }
    names_ = Namespace::open(*store_).value();
    journal_ =
        Journal::start(*store_, *names_, {.cluster = "test", .uid = 0, .gid = 0, .time_ns = now_ns}).value();
    journal_->observe([this](const stored::JournalEntry& entry) { entries.push_back(entry); });
  }

  template <class Method>
  Result<typename Method::Response> call(const typename Method::Request& request, std::uint64_t client = 0,
                                         std::uint64_t request_id = 0) {
    Mutation mutation;
    mutation.method = Method::kNumber;
    mutation.request = request.SerializeAsString();
    mutation.client = client;
    mutation.request_id = request_id;
    mutation.time_ns = now_ns += 1'000'000;
    mutation.worker = WorkerId{worker};
    GRADFS_TRY(auto answer, journal_->commit(std::move(mutation)));
    typename Method::Response response;
    EXPECT_TRUE(response.ParseFromString(answer));
    return response;
  }

  std::uint64_t register_worker() {
    wire::RegisterWorkerRequest request;
    request.set_capacity_bytes(1 << 30);
    return call<rpc::RegisterWorker>(request).value().worker();
  }
  std::uint64_t open_session() { return call<rpc::OpenSession>({}).value().session(); }
  Result<wire::Empty> close_session(std::uint64_t session) {
    wire::SessionRequest request;
    request.set_session(session);
    return call<rpc::CloseSession>(request);
  }

  static wire::CreateRequest create_request(std::uint64_t parent, const std::string& name,
                                            wire::FileType type = wire::REGULAR) {
    wire::CreateRequest request;
    request.set_parent(parent);
    request.set_name(name);
    request.set_type(type);
    request.set_mode(type == wire::DIRECTORY ? 0755 : 0644);
    request.set_uid(1000);
    request.set_gid(1000);
    request.set_exclusive(true);
    if (type == wire::SYMLINK) request.set_symlink_target("target");
    return request;
  }
  Result<wire::AttrResponse> try_create(std::uint64_t parent, const std::string& name,
                                        wire::FileType type = wire::REGULAR) {
    return call<rpc::Create>(create_request(parent, name, type));
  }
  wire::Attr create(std::uint64_t parent, const std::string& name, wire::FileType type = wire::REGULAR) {
    return try_create(parent, name, type).value().attr();
  }
  std::uint64_t mkdir(std::uint64_t parent, const std::string& name) {
    return create(parent, name, wire::DIRECTORY).inode();
  }
  // A file that is open for writing under `session`.
  wire::Attr create_open(std::uint64_t parent, const std::string& name, std::uint64_t session) {
    auto request = create_request(parent, name);
    request.set_session(session);
    request.set_open_for_write(true);
    return call<rpc::Create>(request).value().attr();
  }
  Result<wire::AttrResponse> unlink(std::uint64_t parent, const std::string& name) {
    return call<rpc::Unlink>(remove_request(parent, name));
  }
  Result<wire::Empty> rmdir(std::uint64_t parent, const std::string& name) {
    return call<rpc::Rmdir>(remove_request(parent, name));
  }
  static wire::RemoveRequest remove_request(std::uint64_t parent, const std::string& name) {
    wire::RemoveRequest request;
    request.set_parent(parent);
    request.set_name(name);
    return request;
  }
  Result<wire::AttrResponse> rename(std::uint64_t parent, const std::string& name, std::uint64_t new_parent,
                                    const std::string& new_name, bool no_replace = false) {
    wire::RenameRequest request;
    request.set_parent(parent);
    request.set_name(name);
    request.set_new_parent(new_parent);
    request.set_new_name(new_name);
    request.set_no_replace(no_replace);
    return call<rpc::Rename>(request);
  }
  Result<wire::AttrResponse> lookup(std::uint64_t parent, const std::string& name) {
    wire::LookupRequest request;
    request.set_parent(parent);
    request.set_name(name);
    return names_->lookup(request);
  }
  Result<wire::AttrResponse> stat(std::uint64_t inode) {
    wire::InodeRequest request;
    request.set_inode(inode);
    return names_->get_attr(request);
  }
  wire::Attr attr(std::uint64_t inode) { return stat(inode).value().attr(); }
  std::vector<std::string> list(std::uint64_t inode, std::uint32_t page = 0) {
    std::vector<std::string> out;
    wire::ReadDirRequest request;
    request.set_inode(inode);
    request.set_limit(page);
    for (;;) {
      auto response = names_->read_dir(request).value();
      for (const auto& entry : response.entries()) out.push_back(entry.name());
      if (response.end()) return out;
      request.set_after(out.back());
    }
  }
  std::string xattr(std::uint64_t inode, const std::string& name) {
    wire::XattrRequest request;
    request.set_inode(inode);
    request.set_name(name);
    auto value = names_->get_xattr(request);
    return value ? value.value().value() : "(none)";
  }
  std::string inline_data(std::uint64_t inode) {
    wire::OpenRequest request;
    request.set_inode(inode);
    return names_->open_for_read(request).value().inline_data();
  }
  std::vector<std::uint64_t> commands(char kind) {
    std::vector<std::uint64_t> out;
    for (const auto& [id, index] : names_->commands(kind, WorkerId{worker})) out.push_back(id);
    return out;
  }
  std::vector<std::uint64_t> dropped_images() { return commands(keys::kDropImage); }

  Namespace& names() { return *names_; }
  Journal& journal() { return *journal_; }
  Store& store() { return *store_; }
  MemoryStore& memory() { return dynamic_cast<MemoryStore&>(*store_); }

  std::uint64_t worker = 0;
  std::int64_t now_ns = 1'000'000'000;
  std::vector<stored::JournalEntry> entries;

 private:
  Kind kind_;
  std::string directory_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Namespace> names_;
  std::unique_ptr<Journal> journal_;
};

// A model directory "m" in the root, bound.
struct Model {
  explicit Model(Meta& meta_under_test) : meta(meta_under_test) {
    directory = meta.mkdir(kRoot, "m");
    model = meta.create(directory, "model.safetensors").inode();
    optimizer = allocate();
    binding = bind().value().binding();
  }
  std::uint64_t allocate(std::uint64_t session = 0) {
    wire::AllocateInodeRequest request;
    request.set_worker(meta.worker);
    request.set_mode(0644);
    request.set_session(session);
    return meta.call<rpc::AllocateInode>(request).value().attr().inode();
  }
  Result<wire::CommitBindResponse> bind() {
    wire::CommitBindRequest request;
    request.set_directory(directory);
    request.set_coprocessor("descent");
    request.set_optimizer(optimizer);
    request.set_optimizer_size(4096);
    request.set_config_text("[optimizer]\n");
    request.set_state("state 0");
    request.set_worker(meta.worker);
    return meta.call<rpc::CommitBind>(request);
  }
  std::uint64_t gradients() const { return binding.gradients_dir(); }
  std::uint64_t rejected() const { return binding.rejected_dir(); }
  std::uint64_t slots() { return meta.lookup(directory, "slots").value().attr().inode(); }

  static void add_consume(google::protobuf::RepeatedPtrField<wire::EntryRef>* out, std::uint64_t parent,
                          const std::string& name, std::uint64_t inode) {
    wire::EntryRef& ref = *out->Add();
    ref.set_parent(parent);
    ref.set_name(name);
    ref.set_inode(inode);
  }
  // The close of gradients/NAME.
  wire::CommitPushRequest gradient(const std::string& name, std::uint64_t inode, std::uint64_t session = 0) {
    wire::CommitPushRequest request;
    request.set_binding(binding.binding());
    request.mutable_push()->set_kind(wire::GRADIENT_CLOSE);
    request.mutable_push()->set_inode(inode);
    request.mutable_push()->mutable_identity()->set_session(session);
    request.mutable_push()->mutable_identity()->set_inode(inode);
    request.mutable_push()->mutable_identity()->set_ordinal(++ordinal);
    add_consume(request.mutable_consume(), gradients(), name, inode);
    return request;
  }
  // The fsync of a slot: nothing is consumed, so it may be done again and again.
  wire::CommitPushRequest slot_sync(std::uint64_t inode, const std::string& worker = "",
                                    std::uint64_t step = 0) {
    wire::CommitPushRequest request;
    request.set_binding(binding.binding());
    request.mutable_push()->set_kind(wire::SLOT_SYNC);
    request.mutable_push()->set_inode(inode);
    request.mutable_push()->mutable_identity()->set_inode(inode);
    request.mutable_push()->mutable_identity()->set_ordinal(++ordinal);
    request.mutable_push()->mutable_key()->set_run("run");
    request.mutable_push()->mutable_key()->set_worker(worker);
    request.mutable_push()->mutable_key()->set_step(step);
    return request;
  }
  Result<wire::CommitPushResponse> push(const wire::CommitPushRequest& request) {
    return meta.call<rpc::CommitPush>(request);
  }
  wire::RejectPushRequest refusal(const std::string& name, std::uint64_t inode) {
    wire::RejectPushRequest request;
    request.set_binding(binding.binding());
    request.set_inode(inode);
    request.set_name(name);
    request.mutable_identity()->set_inode(inode);
    request.mutable_identity()->set_ordinal(++ordinal);
    request.set_reason("invalid: shape");
    request.set_error(static_cast<std::uint32_t>(Errc::kInvalid));
    request.set_keep(100);
    add_consume(request.mutable_consume(), gradients(), name, inode);
    return request;
  }
  Result<wire::Empty> reject(const wire::RejectPushRequest& request) {
    return meta.call<rpc::RejectPush>(request);
  }
  Result<wire::Empty> retire(std::uint64_t up_to, const std::string& state = "state") {
    wire::RetireRequest request;
    request.set_binding(binding.binding());
    request.set_up_to(up_to);
    request.set_state(state);
    return meta.call<rpc::Retire>(request);
  }
  wire::BindingState state() {
    wire::BindingRequest request;
    request.set_binding(binding.binding());
    return meta.names().get_binding(request).value().binding();
  }

  Meta& meta;
  std::uint64_t directory = 0;
  std::uint64_t model = 0;
  std::uint64_t optimizer = 0;
  std::uint64_t ordinal = 0;
  wire::BindingState binding;
};

class MetaTest : public ::testing::TestWithParam<Meta::Kind> {
 protected:
  MetaTest() : meta(GetParam()) {}
  Meta meta;
};

#define INSTANTIATE_ON_BOTH_STORES(suite)                                        \
  INSTANTIATE_TEST_SUITE_P(                                                      \
      Stores, suite, ::testing::Values(Meta::Kind::kMemory, Meta::Kind::kRocks), \
      [](const auto& info) { return info.param == Meta::Kind::kMemory ? "memory" : "rocks"; })

}  // namespace gradfs
