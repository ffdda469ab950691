// The operations of the namespace, each on a Transaction: what an entry of the journal does. Internal to
// fs/meta.
//
// None of them reads a clock or a random source. On an error the caller throws the transaction away, so that
// they may fail halfway. One file a subject; what several subjects need is declared at the end of its part.
#pragma once

#include "fs/meta/transaction.h"

namespace gradfs::ops {

// --- entries.cc
// -----------------------------------------------------------------------------------------------
Result<wire::AttrResponse> set_attr(Transaction& txn, const wire::SetAttrRequest& request);
Result<wire::AttrResponse> create(Transaction& txn, const wire::CreateRequest& request);
Result<wire::AttrResponse> unlink(Transaction& txn, const wire::RemoveRequest& request);
Result<wire::Empty> rmdir(Transaction& txn, const wire::RemoveRequest& request);

// 1..255 bytes without '/' and NUL, and not "." or "..".
Result<void> check_name(std::string_view name);
// A new inode with times and id, in no directory yet and not put.
stored::Inode new_inode(Transaction& txn, wire::FileType type, std::uint32_t mode, std::uint32_t uid,
                        std::uint32_t gid);
// Gives `inode` one more name; the caller puts it. The parent's times move.
Result<void> add_entry(Transaction& txn, std::uint64_t parent, const std::string& name, stored::Inode& inode);
// Takes the name away, with the parent's times; the inode is the caller's to settle.
Result<void> remove_entry(Transaction& txn, std::uint64_t parent, const std::string& name, bool is_directory);
// One name fewer: puts the inode, or frees it when nobody needs it any more. Returns how it stands.
Result<wire::Attr> drop_link(Transaction& txn, stored::Inode inode);
// One pin fewer, likewise. No such inode: nothing to do.
Result<void> drop_pin(Transaction& txn, std::uint64_t inode);
// Puts the inode, or, when it has no names, pins and allocation, deletes it and its rows: the image goes on
// the drop list.
Result<void> settle(Transaction& txn, const stored::Inode& inode);
void drop_image(Transaction& txn, const wire::Attr& attr);
// The allocation has found its use; the caller puts the inode.
void end_allocation(Transaction& txn, stored::Inode& inode);

// --- rename.cc
// ------------------------------------------------------------------------------------------------
Result<wire::AttrResponse> rename(Transaction& txn, const wire::RenameRequest& request);

// --- xattrs.cc
// ------------------------------------------------------------------------------------------------
Result<wire::Empty> set_xattr(Transaction& txn, const wire::XattrRequest& request);
Result<wire::Empty> remove_xattr(Transaction& txn, const wire::XattrRequest& request);
Result<wire::XattrResponse> get_xattr(Transaction& txn, const wire::XattrRequest& request);
Result<wire::XattrResponse> list_xattr(Transaction& txn, const wire::XattrRequest& request);

// --- model_directory.cc
// ---------------------------------------------------------------------------------------
inline constexpr std::string_view kModelName = "model.safetensors";
inline constexpr std::string_view kOptimizerName = "optimizer.safetensors";
inline constexpr std::string_view kConfigName = "descent.toml";
inline constexpr std::string_view kStatusName = "status.json";
inline constexpr std::string_view kGradientsName = "gradients";
inline constexpr std::string_view kSlotsName = "slots";
inline constexpr std::string_view kRejectedName = "rejected";

// The inode gets the role that a file of that name has in this directory, or none.
Result<void> assign_role(Transaction& txn, const stored::Inode& parent, std::string_view name,
                         stored::Inode& inode);
void clear_role(stored::Inode& inode);
void set_role(stored::Inode& inode, wire::Role role, std::uint64_t binding);
// Makes it an inline file with these contents; an image that it had goes on the drop list.
void make_inline(Transaction& txn, stored::Inode& inode, const std::string& text);

// --- bindings.cc
// ----------------------------------------------------------------------------------------------
Result<wire::CommitBindResponse> commit_bind(Transaction& txn, const wire::CommitBindRequest& request);
Result<void> remove_binding(Transaction& txn, std::uint64_t binding);
// What a worker needs to go on. `pending`: with the rows of the pushes and the steps.
Result<wire::BindingState> binding_state(Transaction& txn, const stored::Binding& binding, bool pending);
Result<std::string> path_of(Transaction& txn, std::uint64_t directory);

// --- pushes.cc
// ------------------------------------------------------------------------------------------------
Result<wire::CommitPushResponse> commit_push(Transaction& txn, const wire::CommitPushRequest& request);
Result<wire::Empty> retire(Transaction& txn, const wire::RetireRequest& request);
Result<wire::OutcomeResponse> push_outcome(Transaction& txn, const wire::OutcomeRequest& request);

// Stores what became of a push, unless its session has ended.
Result<void> put_outcome(Transaction& txn, const wire::Identity& identity, const stored::Outcome& outcome);
Result<std::optional<stored::Outcome>> find_outcome(Transaction& txn, const wire::Identity& identity);
// Takes away the names that still mean these inodes. `keep` loses its names without being freed.
Result<void> consume_entries(Transaction& txn,
                             const google::protobuf::RepeatedPtrField<wire::EntryRef>& entries,
                             stored::Inode* keep);

// --- rejected.cc
// ----------------------------------------------------------------------------------------------
Result<wire::Empty> reject_push(Transaction& txn, const wire::RejectPushRequest& request);
// A gradient whose mount was lost goes where refused ones are.
Result<void> reject_lost(Transaction& txn, stored::Inode inode, const std::string& reason);

// --- sessions.cc
// ----------------------------------------------------------------------------------------------
Result<wire::OpenSessionResponse> open_session(Transaction& txn, const wire::OpenSessionRequest& request);
Result<wire::Empty> close_session(Transaction& txn, const wire::SessionRequest& request);
Result<wire::AttrResponse> open_file(Transaction& txn, const wire::OpenRequest& request);
Result<wire::Empty> close_file(Transaction& txn, const wire::CloseRequest& request);
Result<wire::AttrResponse> allocate_inode(Transaction& txn, const wire::AllocateInodeRequest& request);

// kStaleEpoch where a session (not 0) has ended.
Result<void> check_session(Transaction& txn, std::uint64_t session);
Result<void> record_lease(Transaction& txn, std::uint64_t session, std::uint64_t inode);

// --- workers.cc
// -----------------------------------------------------------------------------------------------
Result<wire::RegisterWorkerResponse> register_worker(Transaction& txn,
                                                     const wire::RegisterWorkerRequest& request);
Result<wire::Empty> acknowledge_drops(Transaction& txn, const wire::WorkerPollRequest& request);

// --- reads.cc
// -------------------------------------------------------------------------------------------------
wire::AttrResponse attr_response(const stored::Inode& inode);

}  // namespace gradfs::ops
