// What the benchmarks share: a figure and its reference, taken side by side in one run.
//
// Each benchmark is a function from Options to Report. It interleaves what it measures with its reference in
// short slices (A B A B ...), pairs the slices of a round, and reports medians. A missed aim is no error: the
// row says so. All of it runs on the main thread, but for what a benchmark starts itself.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/result.h"

namespace gradfs::bench {

struct Options {
  std::string mount;                        // an existing gradfs mount; "" starts a cluster of its own
  std::uint64_t size_bytes = 512 << 20;     // of the files of `mount`; whole MiB
  std::uint64_t memory_bytes = 4ULL << 30;  // of the worker of an own cluster
  bool quick = false;                       // fewer and shorter rounds: to see that it works, not to report
  bool unpinned = false;                    // `metadata`: not all on one processor
  bool against_itself = false;  // a second bare mount in the place of gradfs: shows the method's noise
};

// What a ratio (gradfs / reference) should be.
struct Aim {
  double ratio = 1.0;
  bool at_least = true;  // else at most
};

struct Row {
  std::string name;                    // "read 4 KiB, random"
  std::string unit;                    // "GB/s", "us"
  double gradfs = 0.0;                 // median
  std::string reference_name;          // "bare mount"
  double reference = 0.0;              // median
  double ratio = 0.0;                  // median of the rounds' ratios, gradfs / reference
  std::map<std::string, double> also;  // "/dev/shm": in the same unit unless the name says another
  std::uint64_t repetitions = 0;       // measurements of each of the two
  std::optional<Aim> aim;
  std::string note;  // one line; may be empty

  // True without an aim.
  [[nodiscard]] bool reached() const;
};

struct Report {
  std::string bench;
  std::vector<Row> rows;
  std::vector<std::string> notes;  // how it was measured; one line each
};

Result<Report> bench_mount(const Options& options);
Result<Report> bench_metadata(const Options& options);
Result<Report> bench_cycle(const Options& options);
Result<Report> bench_descent(const Options& options);
Result<Report> bench_gradient(const Options& options);

// Monotonic seconds.
double now_s();

// Set by SIGINT and SIGTERM. Benchmarks ask between slices and return kInterrupted, so that destructors take
// down what was started.
bool interrupted();
Result<void> check_interrupted();
void request_interrupt() noexcept;  // async-signal-safe

// One line of progress on stderr, if it is a terminal; "" ends it.
void show_progress(const std::string& text);

}  // namespace gradfs::bench
