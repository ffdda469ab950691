// Reads: each sees the rows as the last applied entry left them.
#include <algorithm>

#include "fs/meta/namespace.h"
#include "fs/meta/ops.h"

namespace gradfs {
namespace {

const stored::JournalEntry kNoEntry;

template <class Message>
Result<std::vector<Message>> read_all(Store& store, const std::string& prefix) {
  GRADFS_TRY(auto rows, store.scan(prefix, keys::after_prefix(prefix), kNoLimit));
  std::vector<Message> out(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!out[i].ParseFromString(rows[i].value)) return Error(Errc::kCorrupt, "row of kind " + prefix);
  }
  return out;
}

}  // namespace

wire::AttrResponse ops::attr_response(const stored::Inode& inode) {
  wire::AttrResponse response;
  *response.mutable_attr() = inode.attr();
  return response;
}

Result<wire::AttrResponse> Namespace::lookup(const wire::LookupRequest& request) {
  Transaction view(store_, header_, kNoEntry);
  if (request.name().size() > kNameMax_bytes) return Error(Errc::kNameTooLong);
  GRADFS_TRYV(view.directory(request.parent()));
  GRADFS_TRY(auto id, view.entry(request.parent(), request.name()));
  if (!id) return Error(Errc::kNotFound);
  GRADFS_TRY(auto inode, view.inode(*id));
  return ops::attr_response(inode);
}

Result<wire::AttrResponse> Namespace::get_attr(const wire::InodeRequest& request) {
  Transaction view(store_, header_, kNoEntry);
  GRADFS_TRY(auto inode, view.inode(request.inode()));
  return ops::attr_response(inode);
}

Result<wire::AttrResponse> Namespace::open_for_read(const wire::OpenRequest& request) {
  Transaction view(store_, header_, kNoEntry);
  wire::OpenRequest reading = request;
  reading.set_write(false);
  return ops::open_file(view, reading);
}

Result<wire::ReadDirResponse> Namespace::read_dir(const wire::ReadDirRequest& request) {
  Transaction view(store_, header_, kNoEntry);
  GRADFS_TRY(auto directory, view.directory(request.inode()));
  const std::string prefix = keys::entries(request.inode());
  const std::string begin = request.after().empty() ? prefix : prefix + request.after() + '\0';
  const std::size_t limit =
      request.limit() == 0 ? kReadDirMax : std::min<std::size_t>(request.limit(), kReadDirMax);
  GRADFS_TRY(auto rows, view.scan(begin, keys::after_prefix(prefix), limit + 1));
  wire::ReadDirResponse response;
  response.set_parent(directory.parent());
  response.set_end(rows.size() <= limit);
  if (rows.size() > limit) rows.resize(limit);
  for (const auto& row : rows) {
    GRADFS_TRY(auto inode, view.inode(keys::number_at(row.value, 0)));
    wire::DirectoryEntry& entry = *response.add_entries();
    entry.set_name(row.key.substr(prefix.size()));
    *entry.mutable_attr() = inode.attr();
  }
  return response;
}

Result<wire::XattrResponse> Namespace::get_xattr(const wire::XattrRequest& request) {
  Transaction view(store_, header_, kNoEntry);
  return ops::get_xattr(view, request);
}

Result<wire::XattrResponse> Namespace::list_xattr(const wire::XattrRequest& request) {
  Transaction view(store_, header_, kNoEntry);
  return ops::list_xattr(view, request);
}

Result<wire::OutcomeResponse> Namespace::push_outcome(const wire::OutcomeRequest& request) {
  Transaction view(store_, header_, kNoEntry);
  return ops::push_outcome(view, request);
}

Result<wire::CommitBindResponse> Namespace::get_binding(const wire::BindingRequest& request) {
  Transaction view(store_, header_, kNoEntry);
  std::uint64_t id = request.binding();
  if (id == 0) {
    GRADFS_TRY(auto directory, view.directory(request.directory()));
    if (directory.attr().role() != wire::MODEL_DIR)
      return Error(Errc::kNotFound, "the directory is not bound");
    id = directory.attr().binding();
  }
  GRADFS_TRY(auto binding, view.binding(id));
  wire::CommitBindResponse response;
  GRADFS_TRY(*response.mutable_binding(), ops::binding_state(view, binding, true));
  return response;
}

Result<wire::ListBindingsResponse> Namespace::list_bindings() {
  Transaction view(store_, header_, kNoEntry);
  GRADFS_TRY(auto bindings, read_all<stored::Binding>(store_, "B"));
  wire::ListBindingsResponse response;
  for (const auto& binding : bindings) {
    GRADFS_TRY(*response.add_bindings(), ops::binding_state(view, binding, false));
  }
  return response;
}

Result<std::vector<stored::Session>> Namespace::sessions() { return read_all<stored::Session>(store_, "S"); }
Result<std::vector<stored::Worker>> Namespace::workers() { return read_all<stored::Worker>(store_, "W"); }

Result<std::uint32_t> Namespace::write_leases(SessionId session) {
  const std::string prefix = keys::leases(session.value);
  GRADFS_TRY(auto rows, store_.scan(prefix, keys::after_prefix(prefix), kNoLimit));
  return static_cast<std::uint32_t>(rows.size());
}

Result<WorkerId> Namespace::worker_of_binding(BindingId id) {
  Transaction view(store_, header_, kNoEntry);
  GRADFS_TRY(auto binding, view.binding(id.value));
  return WorkerId{binding.worker()};
}

}  // namespace gradfs
