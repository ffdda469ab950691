#include "fs/base/result.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace gradfs {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error(Errc::kInvalid, "odd");
  return value / 2;
}

Result<int> quarter(int value) {
  GRADFS_TRY(int first, half(value));
  return half(first);
}

TEST(Result, TryPassesTheFirstErrorOn) {
  EXPECT_EQ(quarter(8).value(), 2);
  ASSERT_FALSE(quarter(6));
  EXPECT_EQ(quarter(6).error().code, Errc::kInvalid);
  EXPECT_EQ(quarter(6).error().message(), "invalid: odd");
}

TEST(Result, TableRoundTripsWireAndErrno) {
  EXPECT_EQ(from_wire(static_cast<std::uint16_t>(Errc::kNotFinite)), Errc::kNotFinite);
  EXPECT_EQ(to_errno(Errc::kNotFinite), EDOM);
  EXPECT_EQ(from_errno(EDOM), Errc::kNotFinite);
  EXPECT_EQ(from_errno(EIO), Errc::kIo);
  EXPECT_EQ(from_wire(60000), Errc::kIo);
}

}  // namespace
}  // namespace gradfs
