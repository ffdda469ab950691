// What the user sees of a run while it works.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace gradfs::trainer {

// The mean loss of the latest `window` samples.
class LossWindow {
 public:
  explicit LossWindow(std::uint64_t window) : window_(window) {}
  void add(std::uint64_t samples, double loss_sum);
  [[nodiscard]] double mean() const noexcept;  // 0 before the first

 private:
  struct Part {
    std::uint64_t samples;
    double loss_sum;
  };
  std::uint64_t window_;
  std::uint64_t samples_ = 0;
  double loss_sum_ = 0;
  std::deque<Part> parts_;
};

// What the user sees while it works: a bar that is redrawn on a terminal, else a line at each evaluation.
class ProgressDisplay {
 public:
  struct State {
    double done = 0;    // of the whole run, 0 to 1
    double epoch = 0;   // completed, with a fraction
    double epochs = 0;  // wanted; 0 if the run ends by time
    double seconds = 0;
    double loss = 0;
    double accuracy = 0;  // of the last evaluation; below 0 before the first
    double samples_per_second = 0;
  };

  // terminal: whether stdout is one.
  explicit ProgressDisplay(bool terminal) : terminal_(terminal) {}
  void update(const State& state);        // redraws the bar, at most ten times a second
  void evaluated(const State& state);     // a line
  void message(const std::string& line);  // on stderr, without breaking the bar
  void finish();                          // removes the bar

  static std::string line(const State& state);
  static std::string bar(const State& state, std::size_t columns);

 private:
  bool terminal_;
  bool drawn_ = false;
  std::int64_t drawn_ns_ = 0;
};

}  // namespace gradfs::trainer
