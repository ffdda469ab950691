// What a local filesystem would answer, errno by errno.
#include "tests/meta/harness.h"

namespace gradfs {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class NamespaceTest : public MetaTest {};

TEST_P(NamespaceTest, CreatesAndLooksUp) {
  const wire::Attr file = meta.create(kRoot, "f");
  EXPECT_EQ(meta.lookup(kRoot, "f").value().attr().inode(), file.inode());
  EXPECT_EQ(file.link_count(), 1U);
  EXPECT_EQ(file.mode(), 0644U);
  EXPECT_EQ(file.worker(), meta.worker);
  EXPECT_EQ(file.mtime_ns(), meta.now_ns);
  EXPECT_EQ(meta.attr(kRoot).mtime_ns(), meta.now_ns);
  EXPECT_EQ(meta.attr(kRoot).ctime_ns(), meta.now_ns);
  EXPECT_EQ(code_of(meta.lookup(kRoot, "g")), Errc::kNotFound);
  EXPECT_EQ(code_of(meta.lookup(file.inode(), "g")), Errc::kNotDirectory);
  EXPECT_EQ(code_of(meta.stat(99999)), Errc::kNotFound);
}

TEST_P(NamespaceTest, CreateRefuses) {
  const wire::Attr file = meta.create(kRoot, "f");
  meta.mkdir(kRoot, "d");
  EXPECT_EQ(code_of(meta.try_create(kRoot, "f")), Errc::kExists);
  EXPECT_EQ(code_of(meta.try_create(kRoot, "d", wire::DIRECTORY)), Errc::kExists);
  EXPECT_EQ(code_of(meta.try_create(file.inode(), "x")), Errc::kNotDirectory);
  EXPECT_EQ(code_of(meta.try_create(12345, "x")), Errc::kNotFound);
  EXPECT_EQ(code_of(meta.try_create(kRoot, std::string(256, 'n'))), Errc::kNameTooLong);
  EXPECT_EQ(code_of(meta.try_create(kRoot, "a/b")), Errc::kInvalid);
  EXPECT_EQ(code_of(meta.try_create(kRoot, std::string("a\0b", 3))), Errc::kInvalid);
  EXPECT_EQ(code_of(meta.try_create(kRoot, "..")), Errc::kInvalid);
  EXPECT_EQ(code_of(meta.try_create(kRoot, "")), Errc::kNotFound);
  EXPECT_TRUE(meta.try_create(kRoot, std::string(255, 'n')));
}

TEST_P(NamespaceTest, CreateThatIsNotExclusiveOpens) {
  const wire::Attr file = meta.create(kRoot, "f");
  auto request = Meta::create_request(kRoot, "f");
  request.set_exclusive(false);
  EXPECT_EQ(meta.call<rpc::Create>(request).value().attr().inode(), file.inode());
  meta.mkdir(kRoot, "d");
  request.set_name("d");
  EXPECT_EQ(code_of(meta.call<rpc::Create>(request)), Errc::kIsDirectory);
}

TEST_P(NamespaceTest, DirectoriesInheritTheirGroup) {
  auto request = Meta::create_request(kRoot, "d", wire::DIRECTORY);
  request.set_mode(02775);
  request.set_gid(500);
  const auto parent = meta.call<rpc::Create>(request).value().attr();
  const auto below = meta.create(parent.inode(), "sub", wire::DIRECTORY);
  EXPECT_EQ(below.gid(), 500U);
  EXPECT_EQ(below.mode(), 02755U);
  const auto file = meta.create(parent.inode(), "f");
  EXPECT_EQ(file.gid(), 500U);
  EXPECT_EQ(file.mode(), 0644U);
}

TEST_P(NamespaceTest, SymbolicLinks) {
  const auto link = meta.create(kRoot, "l", wire::SYMLINK);
  EXPECT_EQ(link.symlink_target(), "target");
  EXPECT_EQ(link.size(), 6U);
  EXPECT_EQ(link.worker(), 0U);
  auto request = Meta::create_request(kRoot, "long", wire::SYMLINK);
  request.set_symlink_target(std::string(4096, 'x'));
  EXPECT_EQ(code_of(meta.call<rpc::Create>(request)), Errc::kNameTooLong);
  request.set_symlink_target(std::string(4095, 'x'));
  EXPECT_TRUE(meta.call<rpc::Create>(request));
  EXPECT_TRUE(meta.unlink(kRoot, "l"));
  EXPECT_THAT(meta.dropped_images(), IsEmpty());
}

TEST_P(NamespaceTest, UnlinkDropsTheImage) {
  const auto file = meta.create(kRoot, "f");
  const auto inodes = meta.names().header().inodes();
  const auto removed = meta.unlink(kRoot, "f").value().attr();
  EXPECT_EQ(removed.inode(), file.inode());
  EXPECT_EQ(removed.link_count(), 0U);
  EXPECT_EQ(code_of(meta.stat(file.inode())), Errc::kNotFound);
  EXPECT_EQ(meta.names().header().inodes(), inodes - 1);
  EXPECT_THAT(meta.dropped_images(), ElementsAre(file.inode()));
  EXPECT_EQ(code_of(meta.unlink(kRoot, "f")), Errc::kNotFound);
  meta.mkdir(kRoot, "d");
  EXPECT_EQ(code_of(meta.unlink(kRoot, "d")), Errc::kIsDirectory);

  wire::WorkerPollRequest told;
  told.set_worker(meta.worker);
  told.add_dropped(file.inode());
  EXPECT_TRUE(meta.call<rpc::WorkerPoll>(told));
  EXPECT_THAT(meta.dropped_images(), IsEmpty());
}

TEST_P(NamespaceTest, RmdirAndLinkCounts) {
  const auto root_links = meta.attr(kRoot).link_count();
  const auto d = meta.mkdir(kRoot, "d");
  EXPECT_EQ(meta.attr(d).link_count(), 2U);
  EXPECT_EQ(meta.attr(kRoot).link_count(), root_links + 1);
  meta.create(d, "f");
  EXPECT_EQ(code_of(meta.rmdir(kRoot, "d")), Errc::kNotEmpty);
  EXPECT_TRUE(meta.unlink(d, "f"));
  EXPECT_TRUE(meta.rmdir(kRoot, "d"));
  EXPECT_EQ(meta.attr(kRoot).link_count(), root_links);
  EXPECT_EQ(code_of(meta.rmdir(kRoot, "d")), Errc::kNotFound);
  EXPECT_EQ(code_of(meta.try_create(d, "x")), Errc::kNotFound);
  meta.create(kRoot, "f");
  EXPECT_EQ(code_of(meta.rmdir(kRoot, "f")), Errc::kNotDirectory);
}

TEST_P(NamespaceTest, ReadDirPages) {
  const auto d = meta.mkdir(kRoot, "d");
  std::vector<std::string> names;
  for (int i = 0; i < 25; ++i) {
    names.push_back("file" + std::to_string(100 + i));
    meta.create(d, names.back());
  }
  for (const std::uint32_t page : {1U, 7U, 25U, 1000U}) EXPECT_EQ(meta.list(d, page), names);
  wire::ReadDirRequest request;
  request.set_inode(d);
  EXPECT_EQ(meta.names().read_dir(request).value().parent(), kRoot);
  request.set_inode(meta.create(kRoot, "f").inode());
  EXPECT_EQ(code_of(meta.names().read_dir(request)), Errc::kNotDirectory);
  request.set_inode(4711);
  EXPECT_EQ(code_of(meta.names().read_dir(request)), Errc::kNotFound);
}

TEST_P(NamespaceTest, SetAttrMovesTimes) {
  const auto file = meta.create(kRoot, "f");
  wire::SetAttrRequest request;
  request.set_inode(file.inode());
  request.set_mode(0600);
  auto changed = meta.call<rpc::SetAttr>(request).value().attr();
  EXPECT_EQ(changed.mode(), 0600U);
  EXPECT_EQ(changed.ctime_ns(), meta.now_ns);
  EXPECT_EQ(changed.mtime_ns(), file.mtime_ns());
  request.clear_mode();
  request.set_size(77);
  changed = meta.call<rpc::SetAttr>(request).value().attr();
  EXPECT_EQ(changed.size(), 77U);
  EXPECT_EQ(changed.mtime_ns(), meta.now_ns);
  request.clear_size();
  request.set_mtime_ns(5);
  request.set_atime_ns(6);
  changed = meta.call<rpc::SetAttr>(request).value().attr();
  EXPECT_EQ(changed.mtime_ns(), 5);
  EXPECT_EQ(changed.atime_ns(), 6);
  request.set_inode(kRoot);
  request.set_size(0);
  EXPECT_EQ(code_of(meta.call<rpc::SetAttr>(request)), Errc::kIsDirectory);
}

TEST_P(NamespaceTest, RenameReplaces) {
  const auto a = meta.create(kRoot, "a");
  const auto b = meta.create(kRoot, "b");
  EXPECT_EQ(code_of(meta.rename(kRoot, "a", kRoot, "b", true)), Errc::kExists);
  EXPECT_EQ(meta.rename(kRoot, "a", kRoot, "b").value().attr().inode(), a.inode());
  EXPECT_EQ(meta.lookup(kRoot, "b").value().attr().inode(), a.inode());
  EXPECT_EQ(code_of(meta.lookup(kRoot, "a")), Errc::kNotFound);
  EXPECT_EQ(code_of(meta.stat(b.inode())), Errc::kNotFound);
  EXPECT_THAT(meta.dropped_images(), ElementsAre(b.inode()));
  EXPECT_EQ(meta.attr(a.inode()).link_count(), 1U);
  EXPECT_EQ(meta.attr(a.inode()).ctime_ns(), meta.now_ns);
  EXPECT_TRUE(meta.rename(kRoot, "b", kRoot, "b"));
  EXPECT_EQ(code_of(meta.rename(kRoot, "none", kRoot, "b")), Errc::kNotFound);
}

TEST_P(NamespaceTest, RenameOfDirectories) {
  const auto d = meta.mkdir(kRoot, "d");
  const auto e = meta.mkdir(kRoot, "e");
  const auto sub = meta.mkdir(d, "sub");
  meta.create(kRoot, "f");
  EXPECT_EQ(code_of(meta.rename(kRoot, "d", sub, "x")), Errc::kInvalid);
  EXPECT_EQ(code_of(meta.rename(kRoot, "d", d, "x")), Errc::kInvalid);
  EXPECT_EQ(code_of(meta.rename(kRoot, "d", kRoot, "f")), Errc::kNotDirectory);
  EXPECT_EQ(code_of(meta.rename(kRoot, "f", kRoot, "d")), Errc::kIsDirectory);
  EXPECT_EQ(code_of(meta.rename(kRoot, "e", kRoot, "d")), Errc::kNotEmpty);
  EXPECT_TRUE(meta.rename(d, "sub", kRoot, "e"));
  EXPECT_EQ(code_of(meta.stat(e)), Errc::kNotFound);
  EXPECT_EQ(meta.attr(d).link_count(), 2U);
  EXPECT_EQ(meta.attr(kRoot).link_count(), 4U);
  EXPECT_EQ(meta.attr(sub).link_count(), 2U);
  EXPECT_TRUE(meta.rename(kRoot, "d", sub, "x"));
  wire::ReadDirRequest request;
  request.set_inode(d);
  EXPECT_EQ(meta.names().read_dir(request).value().parent(), sub);
}

TEST_P(NamespaceTest, ExtendedAttributes) {
  wire::XattrRequest request;
  request.set_inode(meta.create(kRoot, "f").inode());
  request.set_name("user.a");
  request.set_value("1");
  request.set_replace(true);
  EXPECT_EQ(code_of(meta.call<rpc::SetXattr>(request)), Errc::kNoAttribute);
  request.set_replace(false);
  EXPECT_TRUE(meta.call<rpc::SetXattr>(request));
  EXPECT_TRUE(meta.attr(request.inode()).has_xattrs());
  request.set_create(true);
  EXPECT_EQ(code_of(meta.call<rpc::SetXattr>(request)), Errc::kExists);
  EXPECT_EQ(meta.xattr(request.inode(), "user.a"), "1");
  request.set_name("user.b");
  EXPECT_TRUE(meta.call<rpc::SetXattr>(request));
  EXPECT_THAT(meta.names().list_xattr(request).value().names(), ElementsAre("user.a", "user.b"));
  EXPECT_TRUE(meta.call<rpc::RemoveXattr>(request));
  EXPECT_EQ(code_of(meta.call<rpc::RemoveXattr>(request)), Errc::kNoAttribute);
  EXPECT_EQ(code_of(meta.names().get_xattr(request)), Errc::kNoAttribute);
  request.set_name(std::string(256, 'x'));
  EXPECT_EQ(code_of(meta.call<rpc::SetXattr>(request)), Errc::kRange);
  request.set_name("user.c");
  request.set_value(std::string(65537, 'x'));
  EXPECT_EQ(code_of(meta.call<rpc::SetXattr>(request)), Errc::kTooBig);
  EXPECT_TRUE(meta.unlink(kRoot, "f"));
  EXPECT_THAT(meta.store().scan("X", "Y", 10).value(), IsEmpty());
}

TEST_P(NamespaceTest, CloseRecordsSizeAndEndsTheLease) {
  const auto session = meta.open_session();
  const auto file = meta.create_open(kRoot, "f", session);
  EXPECT_EQ(meta.names().write_leases(SessionId{session}).value(), 1U);
  wire::CloseRequest request;
  request.set_inode(file.inode());
  request.set_session(session);
  request.set_size(10);
  request.set_mtime_ns(42);
  EXPECT_TRUE(meta.call<rpc::Close>(request));
  EXPECT_EQ(meta.attr(file.inode()).size(), 10U);
  EXPECT_EQ(meta.attr(file.inode()).mtime_ns(), 42);
  EXPECT_EQ(meta.names().write_leases(SessionId{session}).value(), 1U);
  request.set_end_lease(true);
  EXPECT_TRUE(meta.call<rpc::Close>(request));
  EXPECT_EQ(meta.names().write_leases(SessionId{session}).value(), 0U);
  EXPECT_TRUE(meta.unlink(kRoot, "f"));
  EXPECT_TRUE(meta.call<rpc::Close>(request));
}

TEST_P(NamespaceTest, ALostMountLeavesWhatItsImagesHold) {
  const auto session = meta.open_session();
  const auto file = meta.create_open(kRoot, "f", session);
  wire::AllocateInodeRequest allocate;
  allocate.set_session(session);
  const auto staging = meta.call<rpc::AllocateInode>(allocate).value().attr().inode();
  EXPECT_TRUE(meta.close_session(session));
  EXPECT_TRUE(meta.close_session(session));
  EXPECT_THAT(meta.commands(keys::kCommitInode), ElementsAre(file.inode()));
  EXPECT_THAT(meta.dropped_images(), ElementsAre(staging));
  wire::CloseRequest report;
  report.set_inode(file.inode());
  report.set_size(123);
  report.set_mtime_ns(7);
  EXPECT_TRUE(meta.call<rpc::Close>(report));
  EXPECT_THAT(meta.commands(keys::kCommitInode), IsEmpty());
  EXPECT_EQ(meta.attr(file.inode()).size(), 123U);

  wire::OpenRequest open;
  open.set_inode(file.inode());
  open.set_session(session);
  open.set_write(true);
  EXPECT_EQ(code_of(meta.call<rpc::Open>(open)), Errc::kStaleEpoch);
  wire::OpenSessionRequest again;
  again.set_session(session);
  EXPECT_EQ(meta.call<rpc::OpenSession>(again).value().session(), session);
  EXPECT_TRUE(meta.call<rpc::Open>(open));
  again.set_session(1ULL << 60);
  EXPECT_EQ(code_of(meta.call<rpc::OpenSession>(again)), Errc::kInvalid);
}

TEST_P(NamespaceTest, ARetryGetsTheFirstAnswer) {
  const auto request = Meta::create_request(kRoot, "f");
  const auto first = meta.call<rpc::Create>(request, 7, 1).value();
  const auto again = meta.call<rpc::Create>(request, 7, 1).value();
  EXPECT_EQ(first.SerializeAsString(), again.SerializeAsString());
  EXPECT_EQ(code_of(meta.call<rpc::Create>(request, 7, 2)), Errc::kExists);
  EXPECT_EQ(code_of(meta.call<rpc::Create>(request, 8, 1)), Errc::kExists);
  EXPECT_TRUE(meta.call<rpc::Unlink>(Meta::remove_request(kRoot, "f"), 7, 3));
  meta.start();
  EXPECT_TRUE(meta.call<rpc::Unlink>(Meta::remove_request(kRoot, "f"), 7, 3));
  EXPECT_EQ(code_of(meta.call<rpc::Create>(request, 7, 2)), Errc::kExists);
  // The ring has one slot for both numbers: the older answer is forgotten.
  EXPECT_EQ(code_of(meta.call<rpc::Unlink>(Meta::remove_request(kRoot, "f"), 7, 3 + 512)), Errc::kNotFound);
  EXPECT_EQ(code_of(meta.call<rpc::Unlink>(Meta::remove_request(kRoot, "f"), 7, 3)), Errc::kNotFound);
}

TEST_P(NamespaceTest, AnswersAreKeptForSoManyClients) {
  for (std::uint64_t client = 1; client <= kClientsMax + 10; ++client) {
    meta.call<rpc::Create>(Meta::create_request(kRoot, "f" + std::to_string(client)), client, 1).value();
  }
  EXPECT_EQ(meta.store().scan("R", "S", 10000).value().size(), kClientsMax);
}

TEST_P(NamespaceTest, AReopenedStoreHasEverything) {
  const auto d = meta.mkdir(kRoot, "d");
  const auto file = meta.create(d, "f");
  meta.create(d, "gone");
  EXPECT_TRUE(meta.unlink(d, "gone"));
  const auto dropped = meta.dropped_images();
  const auto index = meta.names().applied_index();
  const auto epoch = meta.journal().epoch();
  meta.start();
  EXPECT_EQ(meta.journal().epoch(), epoch + 1);
  EXPECT_EQ(meta.names().applied_index(), index + 1);
  EXPECT_THAT(meta.list(d), ElementsAre("f"));
  EXPECT_EQ(meta.dropped_images(), dropped);
  EXPECT_GT(meta.create(d, "new").inode(), file.inode() + kIdRange - 100);
}

TEST_P(NamespaceTest, IdsAreReservedInRanges) {
  const auto reserved = meta.names().header().reserved_id();
  std::uint64_t last = 0;
  while (last < reserved) {
    const auto id = meta.create(kRoot, "f").inode();
    EXPECT_GT(id, last);
    EXPECT_LT(id, meta.names().header().reserved_id());
    last = id;
    EXPECT_TRUE(meta.unlink(kRoot, "f"));
    if (meta.names().header().reserved_id() != reserved) break;
  }
  EXPECT_EQ(meta.names().header().reserved_id(), reserved + kIdRange);
}

INSTANTIATE_ON_BOTH_STORES(NamespaceTest);

TEST(MemoryStoreTest, ALossOfPowerGoesBackToTheLastSync) {
  Meta meta(Meta::Kind::kMemory);
  const auto kept = meta.create(kRoot, "kept");
  EXPECT_TRUE(meta.store().sync());
  const auto lost = meta.create(kRoot, "lost");
  meta.memory().lose_unsynced();
  meta.start();
  EXPECT_THAT(meta.list(kRoot), ElementsAre("kept"));
  // No id comes twice, though the entry that took it is lost.
  EXPECT_GT(meta.create(kRoot, "new").inode(), lost.inode());
  EXPECT_EQ(meta.lookup(kRoot, "kept").value().attr().inode(), kept.inode());
}

TEST(MemoryStoreTest, AFailedWriteEndsTheNamespace) {
  Meta meta(Meta::Kind::kMemory);
  meta.memory().fail_next(1);
  EXPECT_EQ(code_of(meta.try_create(kRoot, "f")), Errc::kIo);
  ASSERT_TRUE(meta.names().failed());
  EXPECT_EQ(code_of(meta.try_create(kRoot, "f")), Errc::kIo);
  EXPECT_THAT(meta.list(kRoot), IsEmpty());
}

TEST(StoreTest, BatchesScansAndRanges) {
  Meta rocks(Meta::Kind::kRocks);
  MemoryStore memory;
  for (Store* store : {static_cast<Store*>(&memory), &rocks.store()}) {
    Batch batch;
    for (const char* key : {"t1", "t2", "t3", "u1"}) batch.rows[key] = std::string("v") + key;
    EXPECT_TRUE(store->write(batch));
    EXPECT_EQ(store->scan("t", "u", 2).value().size(), 2U);
    EXPECT_EQ(store->scan("t2", "u", 10).value().front().key, "t2");
    Batch change;
    change.erased_ranges.emplace_back("t", "u");
    change.rows["t9"] = "new";
    change.rows["u1"] = std::nullopt;
    EXPECT_TRUE(store->write(change));
    EXPECT_FALSE(store->get("u1").value().has_value());
    EXPECT_EQ(store->scan("t", "v", 10).value().size(), 1U);
    EXPECT_EQ(store->get("t9").value().value(), "new");
    EXPECT_TRUE(store->sync());
  }
}

}  // namespace
}  // namespace gradfs
