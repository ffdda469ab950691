#include "tools/bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace gradfs::bench {
namespace {

using testing::HasSubstr;

Report example() {
  Row fast{"read", "GB/s", 2.0, "bare mount", 2.0, 1.0, {{"/dev/shm", 1.5}}, 39, Aim{0.97, true}, ""};
  Row slow{"cycle", "ms", 6.0, "memcpy + engine alone", 3.0,
           2.0,     {},   100, Aim{1.4, false},         "filled through its map"};
  Row plain{"rename", "us", 30.0, "2 empty round trips", 12.0, 2.5, {}, 2500, std::nullopt, ""};
  return {"mount", {fast, slow, plain}, {"how it was measured"}};
}

TEST(Report, AnAimIsReachedFromItsOwnSide) {
  const Report report = example();
  EXPECT_TRUE(report.rows[0].reached());
  EXPECT_FALSE(report.rows[1].reached());
  EXPECT_TRUE(report.rows[2].reached());
}

TEST(Report, JsonHasEachFigureBesideItsReference) {
  const nlohmann::json json = to_json(example(), true);
  EXPECT_EQ(json["bench"], "mount");
  EXPECT_EQ(json["quick"], true);
  EXPECT_GE(json["machine"]["processors"], 1);
  EXPECT_NE(json["machine"]["kernel"], "");
  ASSERT_EQ(json["rows"].size(), 3U);
  EXPECT_EQ(json["rows"][0]["gradfs"], 2.0);
  EXPECT_EQ(json["rows"][0]["reference_name"], "bare mount");
  EXPECT_EQ(json["rows"][0]["also"]["/dev/shm"], 1.5);
  EXPECT_EQ(json["rows"][0]["aim"], (nlohmann::json{{"at_least", 0.97}, {"reached", true}}));
  EXPECT_EQ(json["rows"][1]["aim"], (nlohmann::json{{"at_most", 1.4}, {"reached", false}}));
  EXPECT_TRUE(json["rows"][2]["aim"].is_null());
}

TEST(Report, TheTableSaysWhatWasMissed) {
  const std::string table = to_table(example());
  EXPECT_THAT(table, HasSubstr("<= 1.40 MISSED"));
  EXPECT_THAT(table, HasSubstr("how it was measured"));
  EXPECT_THAT(table, HasSubstr("/dev/shm 1.50"));
}

TEST(Report, MarkdownHasARowAFigure) {
  EXPECT_THAT(
      to_markdown(example()),
      HasSubstr("| cycle | ms | 6.00 | 3.00 | memcpy + engine alone | 2.000 | <= 1.40 MISSED | 100 |"));
}

}  // namespace
}  // namespace gradfs::bench
