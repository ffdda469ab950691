#include "fs/base/faults.h"

#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

namespace gradfs {
namespace internal {

std::atomic<int> faults_active{1};

}  // namespace internal
namespace {

struct Plan {
  enum class Action { kKill, kError, kDelay };
  Action action = Action::kKill;
  std::int64_t delay_ms = 0;
  std::uint64_t at = 1;
  bool from_then_on = false;
  std::string text;
};

struct Point {
  std::uint64_t reached = 0;
  std::optional<Plan> plan;
};

struct Registry {
  std::mutex mutex;  // the only lock here; protects all below
  std::map<std::string, Point, std::less<>> points;
  bool counting = false;
  bool environment_read = false;
};

Registry& registry() {
  static Registry* const instance = new Registry;  // reached until the very end of the process
  return *instance;
}

template <class Number>
bool parse_number(std::string_view text, Number& out) {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  return ec == std::errc() && end == text.data() + text.size();
}

// "kill@3", "error", "delay:50@2+".
std::optional<Plan> parse_plan(std::string_view text) {
  Plan plan;
  plan.text = text;
  if (const auto at = text.find('@'); at != std::string_view::npos) {
    std::string_view when = text.substr(at + 1);
    text = text.substr(0, at);
    plan.from_then_on = when.ends_with('+');
    if (plan.from_then_on) when.remove_suffix(1);
    if (!parse_number(when, plan.at) || plan.at == 0) return std::nullopt;
  }
  if (text == "kill") {
    plan.action = Plan::Action::kKill;
  } else if (text == "error") {
    plan.action = Plan::Action::kError;
  } else if (text.starts_with("delay:") && parse_number(text.substr(6), plan.delay_ms) &&
             plan.delay_ms >= 0) {
    plan.action = Plan::Action::kDelay;
  } else {
    return std::nullopt;
  }
  return plan;
}

Result<std::map<std::string, Plan>> parse_plans(std::string_view text) {
  std::map<std::string, Plan> plans;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    if (part.empty()) continue;
    const auto equals = part.find('=');
    auto plan = equals == std::string_view::npos ? std::nullopt : parse_plan(part.substr(equals + 1));
    if (!plan || equals == 0)
      return Error(Errc::kInvalid, "fault '" + std::string(part) + "': write NAME=kill@3");
    plans.insert_or_assign(std::string(part.substr(0, equals)), std::move(*plan));
  }
  return plans;
}

// The callers below hold the mutex.
void update_active(Registry& all) {
  bool active = all.counting;
  for (const auto& [name, point] : all.points) active = active || point.plan.has_value();
  internal::faults_active.store(active ? 1 : 0, std::memory_order_relaxed);
}

Result<void> arm(Registry& all, std::string_view text) {
  GRADFS_TRY(auto plans, parse_plans(text));
  for (auto& [name, plan] : plans) all.points[name] = Point{0, std::move(plan)};
  update_active(all);
  return ok();
}

void read_environment(Registry& all) {
  if (all.environment_read) return;
  all.environment_read = true;
  update_active(all);
  const char* text = std::getenv("GRADFS_FAULTS");
  if (text == nullptr) return;
  if (auto armed = arm(all, text); !armed) {
    // A test that believes in its faults must not pass without them.
    std::fprintf(stderr, "GRADFS_FAULTS: %s\n", armed.error().message().c_str());
    std::_Exit(2);
  }
}

// What to do now that the point is reached once more; nothing where it is not its turn.
std::optional<Plan> count_and_decide(const char* name) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  read_environment(all);
  auto place = all.points.find(std::string_view(name));
  if (place == all.points.end()) {
    if (!all.counting && internal::faults_active.load(std::memory_order_relaxed) == 0) return std::nullopt;
    place = all.points.emplace(name, Point()).first;
  }
  Point& point = place->second;
  ++point.reached;
  if (!point.plan) return std::nullopt;
  const bool now =
      point.plan->from_then_on ? point.reached >= point.plan->at : point.reached == point.plan->at;
  return now ? point.plan : std::nullopt;
}

}  // namespace

namespace internal {

Result<void> reach_fault(const char* name) {
  const std::optional<Plan> plan = count_and_decide(name);
  if (!plan) return ok();
  switch (plan->action) {
    case Plan::Action::kKill:
      ::kill(::getpid(), SIGKILL);
      for (;;) ::pause();
    case Plan::Action::kError:
      return Error(Errc::kIo, std::string("injected at ") + name);
    case Plan::Action::kDelay:
      std::this_thread::sleep_for(std::chrono::milliseconds(plan->delay_ms));
      break;
  }
  return ok();
}

}  // namespace internal

Result<void> arm_faults(std::string_view text) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  read_environment(all);
  return arm(all, text);
}

void disarm_faults() {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  all.environment_read = true;
  all.counting = false;
  all.points.clear();
  update_active(all);
}

void count_faults(bool on) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  read_environment(all);
  all.counting = on;
  update_active(all);
}

std::vector<FaultPointState> list_faults() {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  read_environment(all);
  std::vector<FaultPointState> out;
  for (const auto& [name, point] : all.points) {
    out.push_back({name, point.reached, point.plan ? point.plan->text : std::string()});
  }
  return out;
}

}  // namespace gradfs
