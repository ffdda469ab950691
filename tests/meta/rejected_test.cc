// rejected/: what is kept of a refused push, and numbers that become void.
#include "tests/meta/harness.h"

namespace gradfs {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class RejectedTest : public MetaTest {
 protected:
  RejectedTest() : model(meta) {}
  wire::Attr gradient(const std::string& name) { return meta.create(model.gradients(), name); }
  Model model;
};

TEST_P(RejectedTest, RefusedFilesAreKeptWithTheirReason) {
  const auto first = gradient("g");
  EXPECT_TRUE(model.reject(model.refusal("g", first.inode())));
  EXPECT_THAT(meta.list(model.gradients()), IsEmpty());
  EXPECT_EQ(meta.xattr(first.inode(), "user.gradfs.reason"), "invalid: shape");
  EXPECT_EQ(meta.attr(first.inode()).role(), wire::ROLE_NONE);
  const auto second = gradient("g");
  const auto request = model.refusal("g", second.inode());
  EXPECT_TRUE(model.reject(request));
  EXPECT_TRUE(model.reject(request));
  const auto third = gradient("g");
  EXPECT_TRUE(model.reject(model.refusal("g", third.inode())));
  EXPECT_THAT(meta.list(model.rejected()), ElementsAre("g", "g~1", "g~2"));
  EXPECT_EQ(meta.lookup(model.rejected(), "g").value().attr().inode(), third.inode());
  EXPECT_EQ(meta.lookup(model.rejected(), "g~1").value().attr().inode(), first.inode());
  EXPECT_EQ(meta.lookup(model.rejected(), "g~2").value().attr().inode(), second.inode());
  EXPECT_EQ(model.state().refused(), 3U);
  wire::OutcomeRequest ask;
  ask.set_binding(model.binding.binding());
  *ask.mutable_identity() = request.identity();
  const auto outcome = meta.names().push_outcome(ask).value();
  EXPECT_EQ(outcome.error(), static_cast<std::uint32_t>(Errc::kInvalid));
  EXPECT_EQ(outcome.reason(), "invalid: shape");
  auto push = model.gradient("g", second.inode());
  *push.mutable_push()->mutable_identity() = request.identity();
  EXPECT_EQ(code_of(model.push(push)), Errc::kInvalid);
}

TEST_P(RejectedTest, ARefusedRenameLeavesItsSource) {
  const auto file = meta.create(kRoot, "g");
  auto request = model.refusal("g", file.inode());
  request.clear_consume();
  EXPECT_TRUE(model.reject(request));
  EXPECT_EQ(meta.lookup(kRoot, "g").value().attr().inode(), file.inode());
  EXPECT_EQ(meta.lookup(model.rejected(), "g").value().attr().inode(), file.inode());
  EXPECT_EQ(meta.attr(file.inode()).link_count(), 2U);
  request.mutable_identity()->set_ordinal(1000);
  EXPECT_TRUE(model.reject(request));
  EXPECT_THAT(meta.list(model.rejected()), ElementsAre("g"));
  EXPECT_EQ(meta.attr(file.inode()).link_count(), 2U);
  EXPECT_TRUE(meta.unlink(kRoot, "g"));
  EXPECT_TRUE(meta.stat(file.inode()));
  EXPECT_TRUE(meta.unlink(model.rejected(), "g"));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(file.inode()));
}

TEST_P(RejectedTest, ARefusedStagingFileGetsAnOwnerAndAName) {
  const auto staging = model.allocate(meta.open_session());
  auto request = model.refusal("model.safetensors", staging);
  request.clear_consume();
  request.set_size(77);
  EXPECT_TRUE(model.reject(request));
  const auto kept = meta.lookup(model.rejected(), "model.safetensors").value().attr();
  EXPECT_EQ(kept.inode(), staging);
  EXPECT_EQ(kept.uid(), 1000U);
  EXPECT_EQ(kept.size(), 77U);
  EXPECT_EQ(kept.link_count(), 1U);
}

TEST_P(RejectedTest, ARefusedConfigIsKeptAsText) {
  wire::RejectPushRequest request = model.refusal("descent.toml", 0);
  request.clear_consume();
  request.set_inline_data("nonsense");
  EXPECT_TRUE(model.reject(request));
  const auto kept = meta.lookup(model.rejected(), "descent.toml").value().attr();
  EXPECT_EQ(meta.inline_data(kept.inode()), "nonsense");
  EXPECT_EQ(meta.inline_data(model.binding.config()), "[optimizer]\n");
}

// A slot's values are looked at while its commit is under way: what is refused then has a number.
TEST_P(RejectedTest, ANumberRefusedAfterItsCommitIsVoidAndItsStepIsFree) {
  const auto slot = meta.create(model.slots(), "w");
  const auto commit = model.slot_sync(slot.inode(), "w", 7);
  EXPECT_EQ(model.push(commit).value().sequence(), 1U);
  wire::RejectPushRequest refusal = model.refusal("w", meta.create(kRoot, "copy").inode());
  refusal.clear_consume();
  *refusal.mutable_identity() = commit.push().identity();
  refusal.set_void_sequence(1);
  EXPECT_TRUE(model.reject(refusal));
  EXPECT_TRUE(model.reject(refusal));  // once
  EXPECT_EQ(model.state().refused(), 1U);
  EXPECT_THAT(meta.list(model.rejected()), ElementsAre("w"));

  ASSERT_EQ(model.state().pending_size(), 1);
  EXPECT_TRUE(model.state().pending(0).is_void());
  wire::OutcomeRequest ask;
  ask.set_binding(model.binding.binding());
  *ask.mutable_identity() = commit.push().identity();
  EXPECT_EQ(meta.names().push_outcome(ask).value().error(), static_cast<std::uint32_t>(Errc::kInvalid));
  EXPECT_EQ(model.push(commit).error().code, Errc::kInvalid);  // the same push again

  const auto again = model.push(model.slot_sync(slot.inode(), "w", 7)).value();
  EXPECT_EQ(again.sequence(), 2U);
  EXPECT_EQ(again.repeated_step_sequence(), 0U);
  EXPECT_EQ(model.push(model.slot_sync(slot.inode(), "w", 7)).value().repeated_step_sequence(), 2U);
  EXPECT_TRUE(model.retire(2));
  EXPECT_EQ(model.state().pending_size(), 0);
  EXPECT_TRUE(meta.unlink(model.slots(), "w"));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(slot.inode()));
}

TEST_P(RejectedTest, OnlyAPendingNumberBecomesVoid) {
  const auto slot = meta.create(model.slots(), "w");
  const auto commit = model.slot_sync(slot.inode(), "w", 7);
  EXPECT_TRUE(model.push(commit));
  wire::RejectPushRequest refusal = model.refusal("w", 0);
  refusal.clear_consume();
  *refusal.mutable_identity() = commit.push().identity();
  refusal.set_void_sequence(2);  // of another push
  EXPECT_TRUE(model.reject(refusal));
  EXPECT_FALSE(model.state().pending(0).is_void());
  EXPECT_TRUE(model.retire(1));
  refusal.set_void_sequence(1);
  EXPECT_EQ(model.reject(refusal).error().code, Errc::kInvalid);
  EXPECT_THAT(meta.list(model.rejected()), IsEmpty());
}

TEST_P(RejectedTest, RejectedIsTrimmedOldestFirst) {
  std::vector<std::uint64_t> files;
  for (int i = 0; i < 5; ++i) {
    files.push_back(gradient("g").inode());
    auto request = model.refusal("g", files.back());
    request.set_keep(3);
    EXPECT_TRUE(model.reject(request));
  }
  EXPECT_EQ(meta.list(model.rejected()).size(), 3U);
  EXPECT_THAT(meta.dropped_images(), ElementsAre(files[0], files[1]));
  EXPECT_TRUE(meta.rmdir(kRoot, "nothing").error().code == Errc::kNotFound);
}

TEST_P(RejectedTest, WithoutRejectedNothingIsKept) {
  EXPECT_TRUE(meta.rmdir(model.directory, "rejected"));
  const auto file = gradient("g");
  EXPECT_TRUE(model.reject(model.refusal("g", file.inode())));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(file.inode()));
  const auto made = meta.create(model.directory, "rejected", wire::DIRECTORY);
  EXPECT_EQ(made.role(), wire::REJECTED_DIR);
  const auto next = gradient("h");
  EXPECT_TRUE(model.reject(model.refusal("h", next.inode())));
  EXPECT_THAT(meta.list(made.inode()), ElementsAre("h"));
}

TEST_P(RejectedTest, AGradientOfALostMountIsRefused) {
  const auto session = meta.open_session();
  const auto open = meta.create_open(model.gradients(), "g", session);
  const auto hidden = meta.create_open(model.gradients(), ".tmp", session);
  const auto slot = meta.create_open(model.slots(), "s", session);
  EXPECT_TRUE(meta.close_session(session));
  EXPECT_THAT(meta.list(model.gradients()), ElementsAre(".tmp"));
  EXPECT_THAT(meta.list(model.rejected()), ElementsAre("g"));
  EXPECT_EQ(meta.xattr(open.inode(), "user.gradfs.reason"), "its mount was lost before it was closed");
  EXPECT_THAT(meta.commands(keys::kCommitInode), ElementsAre(open.inode(), hidden.inode(), slot.inode()));
  EXPECT_EQ(meta.attr(open.inode()).link_count(), 1U);
  EXPECT_EQ(model.state().refused(), 1U);
}

INSTANTIATE_ON_BOTH_STORES(RejectedTest);

}  // namespace
}  // namespace gradfs
