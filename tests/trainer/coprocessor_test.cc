#include "trainer/coprocessor.h"

#include <gtest/gtest.h>

#include <fcntl.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "tests/trainer/model_directory.h"

namespace gradfs::trainer {
namespace {

struct Script {
  std::vector<int> answers;  // the last is given for ever
  std::size_t asked = 0;
  int operator()() { return answers[std::min(asked++, answers.size() - 1)]; }
};

TEST(PushUntilSettled, TakesAnAnswer) {
  Script taken{{0}};
  EXPECT_EQ(push_until_settled(std::ref(taken), "x", 1000, nullptr).value(), PushOutcome::kCounted);
  Script late{{ERANGE}};
  EXPECT_EQ(push_until_settled(std::ref(late), "x", 1000, nullptr).value(), PushOutcome::kDropped);
  EXPECT_EQ(late.asked, 1u);
  Script not_finite{{EDOM}};
  EXPECT_EQ(push_until_settled(std::ref(not_finite), "x", 1000, nullptr).value(), PushOutcome::kRefused);
  EXPECT_EQ(not_finite.asked, 1u);
}

TEST(PushUntilSettled, AsksAgainAndExistsMeansCounted) {
  Script interrupted{{EINTR, EEXIST}};
  EXPECT_EQ(push_until_settled(std::ref(interrupted), "x", 1000, nullptr).value(), PushOutcome::kCounted);
  EXPECT_EQ(interrupted.asked, 2u);
  Script restarted{{EIO, ETIMEDOUT, EAGAIN, EEXIST}};
  EXPECT_EQ(push_until_settled(std::ref(restarted), "x", 10'000, nullptr).value(), PushOutcome::kCounted);
  EXPECT_EQ(restarted.asked, 4u);
}

TEST(PushUntilSettled, FailsAtOnceOnARefusal) {
  for (const int error : {EINVAL, EDQUOT, ENOSPC, ENOTCONN}) {
    Script refused{{error, 0}};
    const auto outcome = push_until_settled(std::ref(refused), "slots/x", 1000, nullptr);
    ASSERT_FALSE(outcome);
    EXPECT_EQ(refused.asked, 1u);
    EXPECT_NE(outcome.error().message().find("push to slots/x: "), std::string::npos);
    EXPECT_EQ(outcome.error().message().find('\n'), std::string::npos);
  }
}

TEST(PushUntilSettled, EndsAtItsLimitOrAStop) {
  Script down{{EIO}};
  const auto outcome = push_until_settled(std::ref(down), "x", 30, nullptr);
  ASSERT_FALSE(outcome);
  EXPECT_GE(down.asked, 2u);
  RunControl control;
  control.stop = true;
  Script again{{EIO}};
  EXPECT_FALSE(push_until_settled(std::ref(again), "x", 60'000, &control));
  EXPECT_EQ(again.asked, 1u);
}

class Pushes : public testing::Test {
 protected:
  std::unique_ptr<Architecture> open(PushKind push) {
    ExchangeOptions options;
    options.model_directory = directory_.path();
    options.run = "r";
    options.push = push;
    auto made = open_coprocessor(options);
    GRADFS_CHECK(made.has_value());
    return std::move(made.value());
  }
  // The file's metadata and its data.
  static std::pair<nlohmann::json, std::vector<float>> read(const std::string& path) {
    const std::string text = read_text_file(path).value();
    std::uint64_t length = 0;
    std::memcpy(&length, text.data(), sizeof length);
    std::vector<float> data((text.size() - 8 - length) / sizeof(float));
    std::memcpy(data.data(), text.data() + 8 + length, data.size() * sizeof(float));
    return {nlohmann::json::parse(text.substr(8, length))["__metadata__"], data};
  }

  ModelDirectory directory_{{6, 5, 3}};
};

TEST_F(Pushes, SlotIsRewrittenInPlaceAndRemovedAtTheEnd) {
  const auto architecture = open(PushKind::kSlot);
  const std::string slot = directory_.path() + "/slots/r-w3.safetensors";
  {
    const auto exchange = std::move(architecture->make_exchange(3).value());
    ASSERT_EQ(exchange->gradient().size(), architecture->parameters());
    const auto size = std::filesystem::file_size(slot);
    EXPECT_FALSE(architecture->make_exchange(3)) << "two workers must not share a slot";
    for (std::uint64_t step = 1; step <= 11; ++step) {
      std::ranges::fill(exchange->gradient(), static_cast<float>(step));
      EXPECT_EQ(exchange->push(step, 0.5).value(), PushOutcome::kCounted);
      const auto [metadata, data] = read(slot);
      EXPECT_EQ(
          metadata,
          (nlohmann::json{{"run", "r"}, {"worker", "w3"}, {"step", std::to_string(step)}, {"loss", "0.5"}}));
      EXPECT_EQ(data, std::vector<float>(architecture->parameters(), static_cast<float>(step)));
      EXPECT_EQ(std::filesystem::file_size(slot), size);
    }
  }
  EXPECT_FALSE(std::filesystem::exists(slot));
}

TEST_F(Pushes, FileIsANewOneEachTime) {
  const auto architecture = open(PushKind::kFile);
  const auto exchange = std::move(architecture->make_exchange(0).value());
  std::ranges::fill(exchange->gradient(), 2.0f);
  EXPECT_EQ(exchange->push(1, 0.5).value(), PushOutcome::kCounted);
  EXPECT_EQ(exchange->push(2, 0.5).value(), PushOutcome::kCounted);
  EXPECT_EQ(directory_.files_in("gradients"), 2u);
  EXPECT_EQ(directory_.files_in("slots"), 0u);
  const auto [metadata, data] = read(directory_.path() + "/gradients/r-w0-2-1.safetensors");
  EXPECT_EQ(metadata["step"], "2");
  EXPECT_EQ(data, std::vector<float>(architecture->parameters(), 2.0f));
}

TEST_F(Pushes, ParametersAreTheLiveFile) {
  const auto architecture = open(PushKind::kSlot);
  const auto exchange = std::move(architecture->make_exchange(0).value());
  std::vector<float> copy(architecture->parameters());
  ASSERT_TRUE(exchange->fetch(copy));
  const UniqueFd model = std::move(open_file(directory_.path() + "/model.safetensors", O_WRONLY).value());
  const float changed = 123.0f;
  ASSERT_TRUE(write_fully_at(model.get(), std::as_bytes(std::span(&changed, 1)), 4096));
  EXPECT_NE(copy[0], changed);
  EXPECT_EQ(exchange->current().value()[0], changed);
  ASSERT_TRUE(exchange->fetch(copy));
  EXPECT_EQ(copy[0], changed);
}

TEST_F(Pushes, MissingSlotsDirectoryIsAnError) {
  const auto architecture = open(PushKind::kSlot);
  std::filesystem::remove(directory_.path() + "/slots");
  const auto exchange = architecture->make_exchange(0);
  ASSERT_FALSE(exchange);
  EXPECT_NE(exchange.error().message().find("slots/r-w0.safetensors"), std::string::npos);
}

}  // namespace
}  // namespace gradfs::trainer
