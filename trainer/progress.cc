#include "trainer/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "fs/base/clock.h"

namespace gradfs::trainer {
namespace {

constexpr std::int64_t kRedraw_ns = 100 * kMillisecond_ns;
constexpr std::size_t kColumnsDefault = 80;
constexpr std::size_t kBarMax = 30;
constexpr std::size_t kBarMin = 5;

std::size_t terminal_columns() {
  struct winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kColumnsDefault;
  return size.ws_col;
}

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[128];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

std::string figures(const ProgressDisplay::State& state) {
  std::string out = format("loss %.4f", state.loss);
  if (state.accuracy >= 0) out += format("  accuracy %.2f %%", 100 * state.accuracy);
  return out + format("  %.0f samples/s", state.samples_per_second);
}

}  // namespace

void LossWindow::add(std::uint64_t samples, double loss_sum) {
  parts_.push_back({samples, loss_sum});
  samples_ += samples;
  loss_sum_ += loss_sum;
  while (samples_ - parts_.front().samples >= window_) {
    samples_ -= parts_.front().samples;
    loss_sum_ -= parts_.front().loss_sum;
    parts_.pop_front();
  }
}

double LossWindow::mean() const noexcept {
  return samples_ == 0 ? 0 : loss_sum_ / static_cast<double>(samples_);
}

std::string ProgressDisplay::line(const State& state) {
  std::string out = format("%6.1f s  epoch %.2f", state.seconds, state.epoch);
  if (state.epochs > 0) out += format(" of %g", state.epochs);
  return out + "  " + figures(state);
}

std::string ProgressDisplay::bar(const State& state, std::size_t columns) {
  const double done = std::isfinite(state.done) ? std::clamp(state.done, 0.0, 1.0) : 0;
  std::string tail = format("] %3.0f %%  ", 100 * done) + figures(state);
  if (done > 0.01) tail += format("  %.0f s left", state.seconds / done * (1 - done));
  const std::size_t room = columns > tail.size() + 2 ? columns - tail.size() - 2 : 0;
  const std::size_t width = std::min(kBarMax, room);
  std::string out;
  if (width >= kBarMin) {
    const auto filled = static_cast<std::size_t>(done * static_cast<double>(width));
    out = "[" + std::string(filled, '#') + std::string(width - filled, '.') + tail;
  } else {
    out = tail.substr(2);
  }
  if (out.size() >= columns) out.resize(columns > 0 ? columns - 1 : 0);
  return out;
}

void ProgressDisplay::update(const State& state) {
  if (!terminal_) return;
  const std::int64_t now = real_now_ns();
  if (drawn_ && now - drawn_ns_ < kRedraw_ns) return;
  std::printf("\r\033[K%s", bar(state, terminal_columns()).c_str());
  std::fflush(stdout);
  drawn_ = true;
  drawn_ns_ = now;
}

void ProgressDisplay::evaluated(const State& state) {
  finish();
  std::printf("%s\n", line(state).c_str());
  std::fflush(stdout);
}

void ProgressDisplay::message(const std::string& line) {
  finish();
  std::fprintf(stderr, "gradfs-train: %s\n", line.c_str());
}

void ProgressDisplay::finish() {
  if (!drawn_) return;
  std::printf("\r\033[K");
  std::fflush(stdout);
  drawn_ = false;
}

}  // namespace gradfs::trainer
