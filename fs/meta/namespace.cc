#include "fs/meta/namespace.h"

#include <algorithm>

#include "fs/base/check.h"
#include "fs/base/ids.h"
#include "fs/meta/ops.h"
#include "fs/wire/methods.h"

namespace gradfs {
namespace {

constexpr std::uint32_t kFormat = 1;
constexpr std::uint32_t kRootMode = 0755;

template <class Request, class Response>
Result<std::string> run_operation(Transaction& txn,
                                  Result<Response> (*operation)(Transaction&, const Request&)) {
  Request request;
  if (!request.ParseFromString(txn.entry().request()))
    return Error(Errc::kCorrupt, "request of a journal entry");
  GRADFS_TRY(auto response, operation(txn, request));
  return response.SerializeAsString();
}

Result<wire::Empty> start_epoch(Transaction& txn, const stored::StartEpoch& request) {
  stored::Header& header = txn.header();
  if (txn.entry().epoch() <= header.epoch()) return Error(Errc::kStaleEpoch);
  header.set_epoch(txn.entry().epoch());
  header.set_reserved_id(std::max(header.reserved_id(), request.reserved_id()));
  if (header.format() != 0) return wire::Empty();
  header.set_format(kFormat);
  header.set_cluster(request.cluster());
  stored::Inode root = ops::new_inode(txn, wire::DIRECTORY, kRootMode, request.uid(), request.gid());
  root.mutable_attr()->set_inode(kRootInode.value);
  root.mutable_attr()->set_link_count(2);
  root.set_parent(kRootInode.value);
  txn.put_inode(root);
  return wire::Empty();
}

Result<wire::Empty> reserve_ids(Transaction& txn, const stored::ReserveIds& request) {
  if (request.reserved_id() < txn.header().reserved_id()) return Error(Errc::kInvalid, "ids never go back");
  txn.header().set_reserved_id(request.reserved_id());
  return wire::Empty();
}

Result<std::string> dispatch(Transaction& txn) {
  switch (txn.entry().method()) {
    case kStartEpochMethod:
      return run_operation(txn, start_epoch);
    case kReserveIdsMethod:
      return run_operation(txn, reserve_ids);
    case rpc::OpenSession::kNumber:
      return run_operation(txn, ops::open_session);
    case rpc::CloseSession::kNumber:
      return run_operation(txn, ops::close_session);
    case rpc::SetAttr::kNumber:
      return run_operation(txn, ops::set_attr);
    case rpc::Create::kNumber:
      return run_operation(txn, ops::create);
    case rpc::Unlink::kNumber:
      return run_operation(txn, ops::unlink);
    case rpc::Rmdir::kNumber:
      return run_operation(txn, ops::rmdir);
    case rpc::Rename::kNumber:
      return run_operation(txn, ops::rename);
    case rpc::Open::kNumber:
      return run_operation(txn, ops::open_file);
    case rpc::Close::kNumber:
      return run_operation(txn, ops::close_file);
    case rpc::SetXattr::kNumber:
      return run_operation(txn, ops::set_xattr);
    case rpc::RemoveXattr::kNumber:
      return run_operation(txn, ops::remove_xattr);
    case rpc::RegisterWorker::kNumber:
      return run_operation(txn, ops::register_worker);
    case rpc::WorkerPoll::kNumber:
      return run_operation(txn, ops::acknowledge_drops);
    case rpc::AllocateInode::kNumber:
      return run_operation(txn, ops::allocate_inode);
    case rpc::CommitBind::kNumber:
      return run_operation(txn, ops::commit_bind);
    case rpc::CommitPush::kNumber:
      return run_operation(txn, ops::commit_push);
    case rpc::RejectPush::kNumber:
      return run_operation(txn, ops::reject_push);
    case rpc::Retire::kNumber:
      return run_operation(txn, ops::retire);
    default:
      return Error(Errc::kNotSupported, "method " + std::to_string(txn.entry().method()));
  }
}

// A worker's own calls may be done again as they are, and their answers are long.
bool keeps_answer(const stored::JournalEntry& entry) {
  return entry.client() != 0 && entry.method() != rpc::RegisterWorker::kNumber &&
         entry.method() != rpc::WorkerPoll::kNumber && entry.method() != rpc::Retire::kNumber;
}

// Says something about the store, not about the request.
bool is_store_failure(Errc code) { return code == Errc::kIo || code == Errc::kCorrupt; }

bool is_command(char tag) {
  return tag == keys::kDropImage || tag == keys::kDropBinding || tag == keys::kCommitInode;
}

}  // namespace

Result<std::unique_ptr<Namespace>> Namespace::open(Store& store) {
  std::unique_ptr<Namespace> out(new Namespace(store));
  GRADFS_TRYV(out->load());
  return out;
}

Result<void> Namespace::load() {
  GRADFS_TRY(auto header, store_.get(keys::header()));
  if (!header) return ok();
  if (!header_.ParseFromString(*header)) return Error(Errc::kCorrupt, "the header of the metadata");
  if (header_.format() != kFormat) {
    return Error(Errc::kNotSupported, "metadata of format " + std::to_string(header_.format()));
  }
  for (const char tag : {keys::kDropImage, keys::kDropBinding, keys::kCommitInode}) {
    const std::string prefix(1, tag);
    GRADFS_TRY(auto rows, store_.scan(prefix, keys::after_prefix(prefix), kNoLimit));
    for (const auto& row : rows) mirror_command(row.key, row.value);
  }
  GRADFS_TRY(auto answers, store_.scan("R", keys::after_prefix("R"), kNoLimit));
  for (const auto& row : answers) {
    stored::Answer answer;
    if (!answer.ParseFromString(row.value)) return Error(Errc::kCorrupt, "row of an answer");
    auto& last = clients_[keys::number_at(row.key, 1)];
    last = std::max(last, answer.index());
  }
  return ok();
}

void Namespace::mirror_command(const std::string& key, const std::optional<std::string>& value) {
  auto& commands = commands_[{key[0], keys::number_at(key, 1)}];
  if (value) {
    commands[keys::number_at(key, 9)] = keys::number_at(*value, 0);
  } else {
    commands.erase(keys::number_at(key, 9));
  }
}

const std::map<std::uint64_t, std::uint64_t>& Namespace::commands(char kind, WorkerId worker) const {
  static const std::map<std::uint64_t, std::uint64_t> kNone;
  const auto found = commands_.find({kind, worker.value});
  return found == commands_.end() ? kNone : found->second;
}

Result<std::string> Namespace::apply(const stored::JournalEntry& entry) {
  ids_used_ = 0;
  if (failed_) return *failed_;
  GRADFS_CHECK(entry.index() == header_.applied_index() + 1);
  if (keeps_answer(entry)) {
    Transaction view(store_, header_, entry);
    GRADFS_TRY(auto before, view.find<stored::Answer>(keys::answer(entry.client(), entry.request_id())));
    if (before && before->request_id() == entry.request_id()) {
      if (before->error() == 0) return before->body();
      return Error(from_wire(static_cast<std::uint16_t>(before->error())), before->body());
    }
  }
  Batch batch;
  stored::Header header = header_;
  Result<std::string> answer = run(entry, batch, header);
  if (!answer && (!keeps_answer(entry) || is_store_failure(answer.error().code))) return answer;
  if (keeps_answer(entry)) {
    GRADFS_TRYV(remember_answer(entry, answer, batch));
  }
  GRADFS_TRYV(write(batch, header));
  return answer;
}

Result<std::string> Namespace::run(const stored::JournalEntry& entry, Batch& batch, stored::Header& header) {
  Transaction txn(store_, header_, entry);
  Result<std::string> answer = dispatch(txn);
  if (!answer) {  // only the answer and the index remain of it
    Transaction nothing(store_, header_, entry);
    nothing.header().set_applied_index(entry.index());
    header = nothing.header();
    batch = nothing.take_batch();
    return answer;
  }
  GRADFS_CHECK(txn.ids_used() <= kIdsPerEntry);
  ids_used_ = txn.ids_used();
  txn.header().set_applied_index(entry.index());
  header = txn.header();
  batch = txn.take_batch();
  return answer;
}

Result<void> Namespace::remember_answer(const stored::JournalEntry& entry, const Result<std::string>& answer,
                                        Batch& batch) {
  if (!clients_.contains(entry.client()) && clients_.size() >= kClientsMax) {
    const auto oldest = std::min_element(clients_.begin(), clients_.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
    const std::string prefix = keys::answers(oldest->first);
    batch.erased_ranges.emplace_back(prefix, keys::after_prefix(prefix));
    clients_.erase(oldest);
  }
  clients_[entry.client()] = entry.index();
  stored::Answer row;
  row.set_request_id(entry.request_id());
  row.set_index(entry.index());
  row.set_error(answer ? 0 : static_cast<std::uint32_t>(answer.error().code));
  row.set_body(answer ? answer.value() : answer.error().detail);
  batch.rows[keys::answer(entry.client(), entry.request_id())] = row.SerializeAsString();
  return ok();
}

Result<void> Namespace::write(const Batch& batch, const stored::Header& header) {
  auto written = store_.write(batch);
  if (!written) {
    failed_ = written.error();
    return *failed_;
  }
  header_ = header;
  for (const auto& [key, value] : batch.rows) {
    if (is_command(key[0])) mirror_command(key, value);
  }
  return ok();
}

}  // namespace gradfs
