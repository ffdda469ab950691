#include "fs/block/image_store.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace gradfs {
namespace {

constexpr std::uint64_t kMemory = 16 << 20;

// A directory with a tmpfs below it, gone at the end. Needs root, as every test of a real worker does.
class ImageStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gradfs-store-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory_ = name;
    open();
  }
  void TearDown() override {
    store_.reset();
    ::umount2((directory_ + "/mem").c_str(), MNT_DETACH);
    std::filesystem::remove_all(directory_);
  }
  void open(std::uint64_t memory = kMemory) {
    store_.reset();
    auto store = ImageStore::open(directory_, memory);
    ASSERT_TRUE(store) << store.error().message();
    store_.emplace(std::move(store).value());
  }
  void fill(InodeId inode, const std::string& text) {
    auto image = store_->open_image(inode, true);
    ASSERT_TRUE(image);
    ASSERT_TRUE(write_fully_at(image.value().get(), std::as_bytes(std::span(text)), 0));
  }
  std::string text(const UniqueFd& image) {
    struct stat info{};
    EXPECT_EQ(::fstat(image.get(), &info), 0);
    std::string out(static_cast<std::size_t>(info.st_size), '\0');
    EXPECT_TRUE(read_fully_at(image.get(), std::as_writable_bytes(std::span(out)), 0));
    return out;
  }

  std::string directory_;
  std::optional<ImageStore> store_;
};

TEST_F(ImageStoreTest, ImagesOutliveTheStore) {
  fill(InodeId{7}, "seven");
  open();
  auto image = store_->open_image(InodeId{7}, false);
  ASSERT_TRUE(image);
  EXPECT_EQ(text(image.value()), "seven");
}

TEST_F(ImageStoreTest, AMissingImageIsLostNotEmpty) {
  auto image = store_->open_image(InodeId{8}, false);
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code, Errc::kLost);
  EXPECT_FALSE(store_->has_image(InodeId{8}));
}

TEST_F(ImageStoreTest, TwoStoresNeverShareADirectory) {
  auto second = ImageStore::open(directory_, kMemory);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kBusy);
}

TEST_F(ImageStoreTest, MemoryIsBoundedAndAFailedPreallocationLeavesNothing) {
  auto image = store_->open_image(InodeId{9}, true);
  ASSERT_TRUE(image);
  auto allocated = ImageStore::preallocate(image.value(), 2 * kMemory);
  ASSERT_FALSE(allocated);
  EXPECT_EQ(allocated.error().code, Errc::kNoSpace);
  EXPECT_EQ(text(image.value()), "");
  EXPECT_LT(store_->usage().value().used_bytes, kMemory / 4);
  EXPECT_TRUE(ImageStore::preallocate(image.value(), kMemory / 2));
}

TEST_F(ImageStoreTest, ANewSizeIsTakenOverByAnOldTmpfs) {
  fill(InodeId{3}, "three");
  open(2 * kMemory);
  EXPECT_EQ(store_->usage().value().capacity_bytes, 2 * kMemory);
  EXPECT_EQ(store_->usage().value().images, 1U);
}

TEST_F(ImageStoreTest, AStagedCopyIsFrozen) {
  fill(InodeId{4}, "before");
  auto image = store_->open_image(InodeId{4}, false);
  ASSERT_TRUE(image);
  ASSERT_TRUE(store_->stage_copy(BindingId{1}, Sequence{2}, image.value()));
  fill(InodeId{4}, "AFTER!");
  auto staged = store_->open_staged(BindingId{1}, Sequence{2});
  ASSERT_TRUE(staged);
  EXPECT_EQ(text(staged.value()), "before");
  ASSERT_TRUE(store_->remove_staged(BindingId{1}, Sequence{2}));
  EXPECT_FALSE(store_->open_staged(BindingId{1}, Sequence{2}));
}

TEST_F(ImageStoreTest, HolesStayHoles) {
  auto image = store_->open_image(InodeId{5}, true);
  ASSERT_TRUE(image);
  const std::string tail = "tail";
  ASSERT_TRUE(write_fully_at(image.value().get(), std::as_bytes(std::span(tail)), 8 << 20));
  auto copy = store_->open_image(InodeId{6}, true);
  ASSERT_TRUE(copy);
  ASSERT_TRUE(ImageStore::copy_contents(image.value(), copy.value()));
  struct stat info{};
  ASSERT_EQ(::fstat(copy.value().get(), &info), 0);
  EXPECT_EQ(info.st_size, (8 << 20) + 4);
  EXPECT_LT(info.st_blocks * 512, 4 << 20);
  EXPECT_TRUE(text(copy.value()).ends_with("tail"));
}

TEST_F(ImageStoreTest, RemovalOfWhatIsNotThereIsFine) {
  EXPECT_TRUE(store_->remove_image(InodeId{99}));
  EXPECT_TRUE(store_->remove_control(InodeId{99}));
}

}  // namespace
}  // namespace gradfs
