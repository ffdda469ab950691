#include "fs/base/size.h"

#include <gtest/gtest.h>

namespace gradfs {
namespace {

TEST(Size, Units) {
  EXPECT_EQ(parse_size("4GiB").value(), 4ULL << 30);
  EXPECT_EQ(parse_size("512MiB").value(), 512ULL << 20);
  EXPECT_EQ(parse_size("4G").value(), 4ULL << 30);
  EXPECT_EQ(parse_size("1KB").value(), 1024U);
  EXPECT_EQ(parse_size("1000000").value(), 1000000U);
}

TEST(Size, WhatIsNotASizeIsRefused) {
  for (const char* text :
       {"", "0", "GiB", "-1", "4X", "4GiBs", "1.5G", "99999999999999999999", "9999999P", "4iB"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
}

TEST(Size, Text) {
  EXPECT_EQ(format_size(512), "512 B");
  EXPECT_EQ(format_size(1536), "1.5 KiB");
  EXPECT_EQ(format_size(4ULL << 30), "4.0 GiB");
}

}  // namespace
}  // namespace gradfs
