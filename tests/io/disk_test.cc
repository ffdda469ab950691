// One suite for every Disk: io_uring, threads, and the simulated one.
#include "fs/io/disk.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "fs/io/sim_disk.h"
#include "fs/net/sync.h"

namespace gradfs {
namespace {

enum class Kind { kUring, kThreaded, kSimulated };

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

class DiskTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    const bool simulated = GetParam() == Kind::kSimulated;
    executor_ = std::make_unique<Executor>(simulated ? Executor::Time::kSimulated : Executor::Time::kReal);
    if (simulated) {
      disk_ = std::make_unique<SimulatedDisk>(*executor_, 7, SimulatedDiskOptions{});
      root_ = "/data";
      run([](DiskTest& t) -> Task<> { EXPECT_TRUE(co_await t.disk_->make_directory(t.root_)); });
      return;
    }
    char name[] = "/tmp/gradfs-disk-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root_ = name;
    if (GetParam() == Kind::kThreaded) {
      disk_ = make_threaded_disk(*executor_, 2);
      return;
    }
    auto disk = make_uring_disk(*executor_);
    ASSERT_TRUE(disk) << disk.error().message();
    disk_ = std::move(disk).value();
  }
  void TearDown() override {
    disk_.reset();
    if (GetParam() != Kind::kSimulated) std::filesystem::remove_all(root_);
  }

 public:
  // Runs one coroutine to its end, in real or in virtual time.
  void run(Task<> (*body)(DiskTest&)) {
    bool ended = false;
    Scope scope(*executor_);
    scope.spawn(finish(body(*this), ended));
    for (int i = 0; i < 1'000'000 && !ended; ++i) {
      if (executor_->poll() > 0) continue;
      if (GetParam() == Kind::kSimulated) executor_->advance();
    }
    ASSERT_TRUE(ended) << "the disk never answered";
  }

  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Disk> disk_;
  std::string root_;

 private:
  static Task<> finish(Task<> body, bool& ended) {
    co_await std::move(body);
    ended = true;
  }
};

Task<> write_then_read(DiskTest& t) {
  OpenOptions options;
  options.write = options.create = true;
  auto file = co_await t.disk_->open(t.root_ + "/f", options);
  EXPECT_TRUE(file);
  const std::string text = "twelve bytes";
  EXPECT_TRUE(co_await file.value()->write_at(bytes_of(text), 5));
  EXPECT_TRUE(co_await file.value()->sync());
  EXPECT_EQ(file.value()->size().value(), 17U);
  std::string out(32, 'x');
  auto read = co_await file.value()->read_at(std::as_writable_bytes(std::span(out)), 5);
  EXPECT_TRUE(read);
  EXPECT_EQ(out.substr(0, read.value()), text);
}
TEST_P(DiskTest, WriteThenRead) { run(write_then_read); }

Task<> errors(DiskTest& t) {
  auto missing = co_await t.disk_->open(t.root_ + "/missing", {});
  EXPECT_FALSE(missing);
  if (!missing) EXPECT_EQ(missing.error().code, Errc::kNotFound);
  OpenOptions create;
  create.write = create.create = create.exclusive = true;
  EXPECT_TRUE(co_await t.disk_->open(t.root_ + "/f", create));
  auto again = co_await t.disk_->open(t.root_ + "/f", create);
  EXPECT_FALSE(again);
  if (!again) EXPECT_EQ(again.error().code, Errc::kExists);
  auto renamed = co_await t.disk_->rename(t.root_ + "/missing", t.root_ + "/g");
  EXPECT_FALSE(renamed);
  EXPECT_TRUE(co_await t.disk_->make_directory(t.root_ + "/d"));
  EXPECT_FALSE(co_await t.disk_->make_directory(t.root_ + "/d"));
  EXPECT_TRUE(co_await t.disk_->remove(t.root_ + "/d"));
}
TEST_P(DiskTest, Errors) { run(errors); }

Task<> names(DiskTest& t) {
  OpenOptions create;
  create.write = create.create = true;
  for (const char* name : {"/b", "/a", "/c"}) EXPECT_TRUE(co_await t.disk_->open(t.root_ + name, create));
  EXPECT_TRUE(co_await t.disk_->rename(t.root_ + "/c", t.root_ + "/a"));
  EXPECT_TRUE(co_await t.disk_->sync_directory(t.root_));
  auto list = co_await t.disk_->list(t.root_);
  EXPECT_TRUE(list);
  const std::vector<std::string> expected{"a", "b"};
  EXPECT_EQ(list.value(), expected);
}
TEST_P(DiskTest, NamesInOrder) { run(names); }

Task<> replace(DiskTest& t) {
  const std::string path = t.root_ + "/identity";
  const std::string first = "first";
  const std::string second(100'000, '2');
  EXPECT_TRUE(co_await replace_file(*t.disk_, path, bytes_of(first)));
  EXPECT_TRUE(co_await replace_file(*t.disk_, path, bytes_of(second)));
  auto text = co_await read_file(*t.disk_, path, 1 << 20);
  EXPECT_TRUE(text);
  EXPECT_EQ(text.value(), second);
  auto too_big = co_await read_file(*t.disk_, path, 10);
  EXPECT_FALSE(too_big);
}
TEST_P(DiskTest, ReplaceFile) { run(replace); }

Task<> direct(DiskTest& t) {
  OpenOptions options;
  options.write = options.create = options.direct = true;
  auto file = co_await t.disk_->open(t.root_ + "/direct", options);
  EXPECT_TRUE(file);
  AlignedBuffer out(3 * kDirectAlignment);
  std::memset(out.bytes().data(), 0x5a, out.bytes().size());
  EXPECT_TRUE(co_await file.value()->write_at(out.bytes(), kDirectAlignment));
  AlignedBuffer in(3 * kDirectAlignment);
  auto read = co_await file.value()->read_at(in.bytes(), kDirectAlignment);
  EXPECT_TRUE(read);
  EXPECT_EQ(read.value(), in.bytes().size());
  EXPECT_EQ(std::memcmp(in.bytes().data(), out.bytes().data(), in.bytes().size()), 0);
}
TEST_P(DiskTest, DirectIo) { run(direct); }

std::string kind_name(const testing::TestParamInfo<Kind>& info) {
  constexpr const char* kNames[] = {"Uring", "Threaded", "Simulated"};
  return kNames[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(Disks, DiskTest, testing::Values(Kind::kUring, Kind::kThreaded, Kind::kSimulated),
                         kind_name);

// The power goes at every operation of a replacement in turn: the file is always the old or the new text.
struct PowerLoss {
  Executor executor{Executor::Time::kSimulated};
  std::unique_ptr<SimulatedDisk> disk;
  bool ended = false;
  bool replaced = false;
  std::string found;

  static Task<> prepare(PowerLoss& p) {
    (void)co_await p.disk->make_directory("/d");
    (void)co_await p.disk->sync_directory("/");
    const std::string old = "old";
    (void)co_await replace_file(*p.disk, "/d/f", bytes_of(old));
    p.ended = true;
  }
  static Task<> replace(PowerLoss& p) {
    const std::string text(5000, 'n');
    auto done = co_await replace_file(*p.disk, "/d/f", bytes_of(text));
    p.replaced = static_cast<bool>(done);
    p.ended = true;
  }
  static Task<> look(PowerLoss& p) {
    auto text = co_await read_file(*p.disk, "/d/f", 1 << 20);
    p.found = text ? text.value() : "missing";
    p.ended = true;
  }
  void run(Task<> (*body)(PowerLoss&)) {
    ended = false;
    Scope scope(executor);
    scope.spawn(body(*this));
    for (int i = 0; i < 100'000 && !ended; ++i) {
      if (executor.poll() == 0) executor.advance();
    }
    ASSERT_TRUE(ended);
  }
};

TEST(ReplaceFile, IsOldOrNewWhenThePowerGoesAtAnyOperation) {
  int lost = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (std::uint64_t at = 0; at < 12; ++at) {
      PowerLoss p;
      p.disk = std::make_unique<SimulatedDisk>(p.executor, seed, SimulatedDiskOptions{});
      p.run(PowerLoss::prepare);
      p.disk->lose_power_at(p.disk->operations() + at);
      p.run(PowerLoss::replace);
      if (!p.replaced) ++lost;
      p.disk->lose_power();
      p.disk->restore_power();
      p.run(PowerLoss::look);
      const bool is_new = p.found == std::string(5000, 'n');
      EXPECT_TRUE(is_new || (!p.replaced && p.found == "old"))
          << "seed " << seed << ", operation " << at << ": " << p.found.substr(0, 20);
    }
  }
  EXPECT_GT(lost, 20);  // the power did go
}

}  // namespace
}  // namespace gradfs
