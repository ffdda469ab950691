// Model directories: roles, the life of a binding, its sequence.
#include "tests/meta/harness.h"

namespace gradfs {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

class BindingTest : public MetaTest {
 protected:
  BindingTest() : model(meta) {}
  wire::Attr gradient(const std::string& name) { return meta.create(model.gradients(), name); }
  Model model;
};

TEST_P(BindingTest, GivesRoles) {
  EXPECT_THAT(meta.list(model.directory),
              ElementsAre("descent.toml", "gradients", "model.safetensors", "optimizer.safetensors",
                          "rejected", "slots", "status.json"));
  const auto role = [&](const std::string& name) {
    return meta.lookup(model.directory, name).value().attr().role();
  };
  EXPECT_EQ(meta.attr(model.directory).role(), wire::MODEL_DIR);
  EXPECT_EQ(role("model.safetensors"), wire::MODEL);
  EXPECT_EQ(role("optimizer.safetensors"), wire::OPTIMIZER);
  EXPECT_EQ(role("descent.toml"), wire::CONFIG);
  EXPECT_EQ(role("status.json"), wire::STATUS);
  EXPECT_EQ(role("gradients"), wire::GRADIENTS_DIR);
  EXPECT_EQ(role("slots"), wire::SLOTS_DIR);
  EXPECT_EQ(role("rejected"), wire::REJECTED_DIR);
  const auto optimizer = meta.attr(model.optimizer);
  EXPECT_EQ(optimizer.uid(), 0U);
  EXPECT_EQ(optimizer.mode(), 0644U);
  EXPECT_EQ(optimizer.size(), 4096U);
  EXPECT_EQ(optimizer.link_count(), 1U);
  EXPECT_EQ(meta.attr(model.gradients()).uid(), 1000U);
  EXPECT_EQ(meta.attr(model.directory).link_count(), 5U);
  EXPECT_EQ(meta.inline_data(model.binding.config()), "[optimizer]\n");
  EXPECT_EQ(model.binding.path(), "/m");
  EXPECT_EQ(model.binding.next_sequence(), 1U);
  EXPECT_EQ(code_of(model.bind()), Errc::kExists);
}

TEST_P(BindingTest, BindsWhatIsThere) {
  const auto d = meta.mkdir(kRoot, "other");
  Model other = model;
  other.directory = d;
  other.optimizer = other.allocate();
  EXPECT_EQ(code_of(other.bind()), Errc::kNotFound);
  meta.create(d, "model.safetensors");
  const auto config = meta.create(d, "descent.toml");
  const auto slots = meta.mkdir(d, "slots");
  const auto slot = meta.create(slots, "w0");
  EXPECT_TRUE(other.bind());
  EXPECT_EQ(meta.attr(slot.inode()).role(), wire::SLOT);
  EXPECT_NE(meta.attr(slot.inode()).binding(), 0U);
  EXPECT_TRUE(meta.attr(config.inode()).is_inline());
  EXPECT_EQ(meta.attr(config.inode()).worker(), 0U);
  EXPECT_THAT(meta.dropped_images(), ElementsAre(config.inode()));
  EXPECT_EQ(meta.names().list_bindings().value().bindings_size(), 2);
}

TEST_P(BindingTest, RolesFollowTheDirectory) {
  const auto g = gradient("g");
  EXPECT_EQ(g.role(), wire::GRADIENT);
  EXPECT_EQ(g.binding(), model.binding.binding());
  EXPECT_EQ(meta.rename(model.gradients(), "g", kRoot, "g").value().attr().role(), wire::ROLE_NONE);
  EXPECT_EQ(meta.attr(g.inode()).binding(), 0U);
  EXPECT_EQ(meta.rename(kRoot, "g", model.slots(), "s").value().attr().role(), wire::SLOT);
  EXPECT_EQ(meta.rename(model.slots(), "s", model.gradients(), ".s").value().attr().role(), wire::GRADIENT);
  EXPECT_EQ(meta.create(model.directory, "notes").role(), wire::ROLE_NONE);
}

TEST_P(BindingTest, FilesOfTheModelStay) {
  for (const char* name :
       {"model.safetensors", "optimizer.safetensors", "status.json", "gradients", "slots"}) {
    EXPECT_EQ(code_of(meta.rename(model.directory, name, kRoot, "x")), Errc::kPermission) << name;
  }
  meta.create(kRoot, "new");
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "descent.toml", "status.json"}) {
    EXPECT_EQ(code_of(meta.rename(kRoot, "new", model.directory, name)), Errc::kBusy) << name;
  }
}

TEST_P(BindingTest, AnEditorMayMoveTheConfigAwayAndWriteItAnew) {
  EXPECT_EQ(
      meta.rename(model.directory, "descent.toml", model.directory, "descent.toml~").value().attr().role(),
      wire::ROLE_NONE);
  const auto config = meta.create(model.directory, "descent.toml");
  EXPECT_EQ(config.role(), wire::CONFIG);
  EXPECT_TRUE(config.is_inline());
  EXPECT_EQ(model.state().config(), config.inode());
}

TEST_P(BindingTest, MvKeepsEverything) {
  EXPECT_TRUE(meta.rename(kRoot, "m", meta.mkdir(kRoot, "d"), "moved"));
  EXPECT_EQ(model.state().path(), "/d/moved");
  EXPECT_EQ(meta.attr(model.directory).role(), wire::MODEL_DIR);
  EXPECT_EQ(gradient("g").role(), wire::GRADIENT);
}

TEST_P(BindingTest, RmOfTheModelEndsTheBinding) {
  const auto g = gradient("g");
  const auto pending = gradient("p");
  EXPECT_TRUE(model.push(model.gradient("p", pending.inode())));
  EXPECT_TRUE(model.push(model.slot_sync(meta.create(model.slots(), "s").inode(), "w", 1)));
  EXPECT_TRUE(meta.unlink(model.directory, "model.safetensors"));
  EXPECT_EQ(meta.attr(g.inode()).role(), wire::ROLE_NONE);
  EXPECT_EQ(meta.attr(model.directory).role(), wire::ROLE_NONE);
  EXPECT_EQ(meta.attr(model.optimizer).role(), wire::ROLE_NONE);
  EXPECT_EQ(meta.inline_data(model.binding.config()), "[optimizer]\n");
  EXPECT_THAT(meta.commands(keys::kDropBinding), ElementsAre(model.binding.binding()));
  EXPECT_THAT(meta.dropped_images(), UnorderedElementsAre(model.model, pending.inode()));
  for (const char* tag : {"B", "P", "T", "U", "V"}) {
    EXPECT_THAT(meta.store().scan(tag, keys::after_prefix(tag), 10).value(), IsEmpty()) << tag;
  }
  EXPECT_EQ(code_of(model.push(model.gradient("g", g.inode()))), Errc::kNotFound);
  EXPECT_EQ(code_of(model.retire(1)), Errc::kNotFound);
  EXPECT_EQ(meta.names().header().bindings(), 0U);
  EXPECT_TRUE(meta.unlink(model.directory, "optimizer.safetensors"));
  EXPECT_THAT(meta.dropped_images(), Contains(model.optimizer));
}

// rm -r goes through the names in order.
TEST_P(BindingTest, RmOfTheWholeDirectory) {
  const auto before = meta.names().header().inodes();
  gradient("g");
  meta.create(model.slots(), "s");
  for (const auto& name : meta.list(model.directory)) {
    const auto child = meta.lookup(model.directory, name).value().attr();
    if (child.type() == wire::DIRECTORY) {
      for (const auto& below : meta.list(child.inode()))
        EXPECT_TRUE(meta.unlink(child.inode(), below)) << below;
      EXPECT_TRUE(meta.rmdir(model.directory, name)) << name;
    } else {
      EXPECT_TRUE(meta.unlink(model.directory, name)) << name;
    }
  }
  EXPECT_TRUE(meta.rmdir(kRoot, "m"));
  EXPECT_EQ(meta.names().header().inodes(), before - 8);
  EXPECT_EQ(meta.names().list_bindings().value().bindings_size(), 0);
}

TEST_P(BindingTest, ABoundModelSurvivesItsNames) {
  EXPECT_TRUE(meta.unlink(model.directory, "optimizer.safetensors"));
  EXPECT_TRUE(meta.stat(model.optimizer));
  EXPECT_THAT(meta.dropped_images(), Not(Contains(model.optimizer)));
  EXPECT_TRUE(meta.unlink(model.directory, "model.safetensors"));
  EXPECT_THAT(meta.dropped_images(), UnorderedElementsAre(model.model, model.optimizer));
}

TEST_P(BindingTest, NumbersInOrderAndNamesGone) {
  for (std::uint64_t i = 1; i <= 3; ++i) {
    const std::string name = "g" + std::to_string(i);
    const auto file = gradient(name);
    EXPECT_EQ(model.push(model.gradient(name, file.inode())).value().sequence(), i);
    EXPECT_EQ(code_of(meta.lookup(model.gradients(), name)), Errc::kNotFound);
    EXPECT_EQ(meta.attr(file.inode()).link_count(), 0U);
  }
  EXPECT_THAT(meta.dropped_images(), IsEmpty());
  const auto state = model.state();
  EXPECT_EQ(state.next_sequence(), 4U);
  ASSERT_EQ(state.pending_size(), 3);
  EXPECT_EQ(state.pending(1).sequence(), 2U);
  EXPECT_GT(state.pending(1).time_ns(), 0);
}

TEST_P(BindingTest, RetireFreesWhatWasConsumed) {
  const auto a = gradient("a");
  const auto b = gradient("b");
  const auto slot = meta.create(model.slots(), "s");
  EXPECT_TRUE(model.push(model.gradient("a", a.inode())));
  EXPECT_TRUE(model.push(model.slot_sync(slot.inode())));
  EXPECT_TRUE(model.push(model.gradient("b", b.inode())));
  EXPECT_TRUE(model.retire(2, "state 2"));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(a.inode()));
  EXPECT_TRUE(meta.stat(slot.inode()));
  EXPECT_TRUE(meta.stat(b.inode()));
  const auto state = model.state();
  EXPECT_EQ(state.retired(), 2U);
  EXPECT_EQ(state.state(), "state 2");
  EXPECT_EQ(state.pending_size(), 1);
  EXPECT_TRUE(model.retire(1, "older"));
  EXPECT_EQ(model.state().retired(), 2U);
  EXPECT_EQ(code_of(model.retire(4)), Errc::kInvalid);
  EXPECT_TRUE(model.retire(3));
  EXPECT_EQ(code_of(meta.stat(b.inode())), Errc::kNotFound);
}

TEST_P(BindingTest, AnUnlinkedSlotStaysUntilItsNumberIsRetired) {
  const auto slot = meta.create(model.slots(), "s");
  EXPECT_TRUE(model.push(model.slot_sync(slot.inode())));
  EXPECT_TRUE(meta.unlink(model.slots(), "s"));
  EXPECT_THAT(meta.dropped_images(), IsEmpty());
  EXPECT_TRUE(model.retire(1));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(slot.inode()));
}

TEST_P(BindingTest, APushIsCommittedOnce) {
  const auto session = meta.open_session();
  const auto file = meta.create_open(model.gradients(), "g", session);
  const auto request = model.gradient("g", file.inode(), session);
  EXPECT_EQ(model.push(request).value().sequence(), 1U);
  EXPECT_EQ(meta.names().write_leases(SessionId{session}).value(), 0U);
  const auto again = model.push(request).value();
  EXPECT_EQ(again.sequence(), 1U);
  EXPECT_TRUE(again.repeated_identity());
  wire::OutcomeRequest ask;
  ask.set_binding(model.binding.binding());
  *ask.mutable_identity() = request.push().identity();
  EXPECT_TRUE(meta.names().push_outcome(ask).value().known());
  EXPECT_EQ(meta.names().push_outcome(ask).value().sequence(), 1U);
  ask.mutable_identity()->set_ordinal(999);
  EXPECT_FALSE(meta.names().push_outcome(ask).value().known());
  EXPECT_TRUE(model.retire(1));
  EXPECT_EQ(model.push(request).value().sequence(), 1U);
}

TEST_P(BindingTest, OutcomesOfASessionAreARing) {
  const auto session = meta.open_session();
  const auto slot = meta.create(model.slots(), "s");
  auto request = model.slot_sync(slot.inode());
  request.mutable_push()->mutable_identity()->set_session(session);
  for (std::uint64_t i = 1; i <= keys::kOutcomesKept + 1; ++i) {
    request.mutable_push()->mutable_identity()->set_ordinal(i);
    ASSERT_EQ(model.push(request).value().sequence(), i);
  }
  wire::OutcomeRequest ask;
  ask.set_binding(model.binding.binding());
  *ask.mutable_identity() = request.push().identity();
  EXPECT_TRUE(meta.names().push_outcome(ask).value().known());
  ask.mutable_identity()->set_ordinal(2);
  EXPECT_TRUE(meta.names().push_outcome(ask).value().known());
  ask.mutable_identity()->set_ordinal(1);
  EXPECT_FALSE(meta.names().push_outcome(ask).value().known());
  EXPECT_TRUE(meta.close_session(session));
  EXPECT_THAT(meta.store().scan("O", "P", 10).value(), IsEmpty());
  EXPECT_THAT(meta.store().scan("Q", "R", 10).value(), IsEmpty());
  request.mutable_push()->mutable_identity()->set_ordinal(9999);
  EXPECT_EQ(code_of(model.push(request)), Errc::kCancelled);
}

TEST_P(BindingTest, AStepCountsOnce) {
  const auto slot = meta.create(model.slots(), "s");
  EXPECT_EQ(model.push(model.slot_sync(slot.inode(), "w0", 5)).value().sequence(), 1U);
  const auto repeated = model.push(model.slot_sync(slot.inode(), "w0", 5)).value();
  EXPECT_EQ(repeated.sequence(), 0U);
  EXPECT_EQ(repeated.repeated_step_sequence(), 1U);
  EXPECT_EQ(model.push(model.slot_sync(slot.inode(), "w1", 5)).value().sequence(), 2U);
  EXPECT_EQ(model.push(model.slot_sync(slot.inode(), "w0", 4)).value().sequence(), 3U);
  EXPECT_EQ(model.push(model.slot_sync(slot.inode())).value().sequence(), 4U);
  EXPECT_EQ(model.push(model.slot_sync(slot.inode())).value().sequence(), 5U);
  const auto state = model.state();
  ASSERT_EQ(state.last_steps_size(), 2);
  EXPECT_EQ(state.last_steps(0).worker(), "w0");
  EXPECT_EQ(state.last_steps(0).last_step(), 5U);
  EXPECT_EQ(code_of(model.push(model.slot_sync(slot.inode(), std::string(256, 'w'), 1))), Errc::kInvalid);
}

TEST_P(BindingTest, StepsOfAWorkerAreARing) {
  const auto slot = meta.create(model.slots(), "s");
  for (std::uint64_t step = 1; step <= keys::kStepsKept + 1; ++step) {
    ASSERT_EQ(model.push(model.slot_sync(slot.inode(), "w", step)).value().sequence(), step);
  }
  EXPECT_EQ(model.push(model.slot_sync(slot.inode(), "w", 2)).value().repeated_step_sequence(), 2U);
  EXPECT_EQ(model.push(model.slot_sync(slot.inode(), "w", 1)).value().sequence(), keys::kStepsKept + 2);
  EXPECT_EQ(model.push(model.slot_sync(slot.inode(), "w", 2)).value().sequence(), keys::kStepsKept + 3);
  EXPECT_EQ(meta.store().scan("T", "U", 10000).value().size(), keys::kStepsKept);
}

TEST_P(BindingTest, AFailedCommitConsumesNoStep) {
  auto request = model.slot_sync(123456789, "w", 1);
  EXPECT_EQ(code_of(model.push(request)), Errc::kNotFound);
  request = model.slot_sync(meta.create(model.slots(), "s").inode(), "w", 1);
  EXPECT_EQ(model.push(request).value().sequence(), 1U);
}

TEST_P(BindingTest, AMovedGradientDoesNotLand) {
  const auto file = gradient("g");
  const auto request = model.gradient("g", file.inode());
  EXPECT_TRUE(meta.rename(model.gradients(), "g", kRoot, "g"));
  EXPECT_EQ(code_of(model.push(request)), Errc::kNotFound);
  EXPECT_TRUE(meta.lookup(kRoot, "g"));
}

TEST_P(BindingTest, RenameInLands) {
  const auto file = meta.create(kRoot, "tmp");
  auto request = model.slot_sync(file.inode());
  request.mutable_push()->set_kind(wire::GRADIENT_RENAME);
  Model::add_consume(request.mutable_consume(), kRoot, "tmp", file.inode());
  EXPECT_EQ(model.push(request).value().sequence(), 1U);
  EXPECT_EQ(code_of(meta.lookup(kRoot, "tmp")), Errc::kNotFound);
  EXPECT_TRUE(model.retire(1));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(file.inode()));
}

TEST_P(BindingTest, AnAssignConsumesItsStagingFile) {
  const auto session = meta.open_session();
  const auto staging = model.allocate(session);
  auto request = model.slot_sync(staging);
  request.mutable_push()->set_kind(wire::ASSIGN_MODEL);
  EXPECT_EQ(model.push(request).value().sequence(), 1U);
  EXPECT_TRUE(meta.close_session(session));
  EXPECT_THAT(meta.dropped_images(), IsEmpty());
  EXPECT_TRUE(model.retire(1));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(staging));
}

TEST_P(BindingTest, AConfigEditSwapsTheOptimizer) {
  const auto fresh = model.allocate();
  auto request = model.slot_sync(0);
  request.mutable_push()->set_kind(wire::CONFIG_EDIT);
  request.set_config_text("name = \"adam\"\n");
  request.set_new_optimizer(fresh);
  request.set_new_optimizer_size(8192);
  EXPECT_EQ(model.push(request).value().sequence(), 1U);
  EXPECT_EQ(meta.inline_data(model.binding.config()), "name = \"adam\"\n");
  EXPECT_EQ(meta.attr(model.binding.config()).size(), 14U);
  EXPECT_EQ(meta.attr(model.binding.config()).mtime_ns(), meta.now_ns);
  const auto named = meta.lookup(model.directory, "optimizer.safetensors").value().attr();
  EXPECT_EQ(named.inode(), fresh);
  EXPECT_EQ(named.size(), 8192U);
  EXPECT_EQ(named.role(), wire::OPTIMIZER);
  EXPECT_EQ(model.state().optimizer(), fresh);
  EXPECT_THAT(meta.dropped_images(), IsEmpty());
  EXPECT_TRUE(model.retire(1));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(model.optimizer));
}

TEST_P(BindingTest, ARestartedWorkerGetsItsBindings) {
  const auto slot = meta.create(model.slots(), "s");
  EXPECT_TRUE(model.push(model.slot_sync(slot.inode(), "w", 3)));
  wire::RegisterWorkerRequest request;
  request.set_worker(meta.worker);
  const auto first = meta.call<rpc::RegisterWorker>(request).value();
  EXPECT_EQ(first.worker(), meta.worker);
  ASSERT_EQ(first.bindings_size(), 1);
  EXPECT_EQ(first.bindings(0).pending_size(), 1);
  EXPECT_EQ(first.bindings(0).last_steps(0).last_step(), 3U);
  auto* applied = request.add_applied();
  applied->set_binding(model.binding.binding());
  applied->set_applied(7);
  const auto second = meta.call<rpc::RegisterWorker>(request).value();
  EXPECT_NE(second.incarnation(), first.incarnation());
  EXPECT_EQ(second.bindings(0).next_sequence(), 8U);
  EXPECT_EQ(model.push(model.slot_sync(slot.inode())).value().sequence(), 8U);
  request.set_worker(0x77777777);
  EXPECT_EQ(meta.call<rpc::RegisterWorker>(request).value().bindings_size(), 0);
}

TEST_P(BindingTest, AllocationsThatNobodyUsedAreFreed) {
  const auto file = model.allocate();
  wire::RegisterWorkerRequest request;
  request.set_worker(meta.worker);
  EXPECT_TRUE(meta.call<rpc::RegisterWorker>(request));
  EXPECT_THAT(meta.dropped_images(), IsEmpty());
  meta.now_ns += kAllocationMax_ns;
  EXPECT_TRUE(meta.call<rpc::RegisterWorker>(request));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(file));
}

INSTANTIATE_ON_BOTH_STORES(BindingTest);

}  // namespace
}  // namespace gradfs
