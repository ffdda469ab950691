// gradfs-bench mount: reads, writes and maps through a gradfs mount, beside a bare passthrough mount and
// /dev/shm.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fs/base/clock.h"
#include "fs/base/fd.h"
#include "fs/base/size.h"
#include "tools/bench/bare_mount.h"
#include "tools/bench/bench.h"
#include "tools/bench/cluster.h"
#include "tools/bench/scratch.h"
#include "tools/bench/stats.h"

namespace gradfs::bench {
namespace {

constexpr std::size_t kSmall = 4096;
constexpr std::size_t kLarge = 1 << 20;
constexpr std::size_t kOffsets = 65536;
constexpr std::uint64_t kFreshMax = 128 << 20;  // of a slice of fresh pages
constexpr double kAim = 0.97;

enum class Access { kRead, kWrite, kMap, kFresh };

struct Case {
  const char* name;
  Access access;
  std::size_t block;
  bool random;
};

constexpr std::array kCases = {
    Case{"read 4 KiB, sequential", Access::kRead, kSmall, false},
    Case{"read 4 KiB, random", Access::kRead, kSmall, true},
    Case{"read 1 MiB, sequential", Access::kRead, kLarge, false},
    Case{"read 1 MiB, random", Access::kRead, kLarge, true},
    Case{"write 4 KiB, sequential", Access::kWrite, kSmall, false},
    Case{"write 4 KiB, random", Access::kWrite, kSmall, true},
    Case{"write 1 MiB, sequential", Access::kWrite, kLarge, false},
    Case{"write 1 MiB, random", Access::kWrite, kLarge, true},
    Case{"write 1 MiB, fresh pages", Access::kFresh, kLarge, false},
    Case{"mmap read 1 MiB, sequential", Access::kMap, kLarge, false},
    Case{"mmap read 4 KiB, random", Access::kMap, kSmall, true},
};

struct Plan {
  double slice_s;
  int generations;  // the files are made anew for each, so that no luck with physical pages lasts
  int rounds;       // of each case in each generation
};
constexpr Plan kFull{0.05, 3, 25};
constexpr Plan kQuick{0.03, 2, 4};

struct Target {
  std::string name;
  std::string directory;
  UniqueFd file;   // written once; its pages stay
  UniqueFd fresh;  // truncated before each slice
};

struct Offsets {
  std::vector<std::uint64_t> small;
  std::vector<std::uint64_t> large;
};

Offsets random_offsets(std::uint64_t size_bytes) {
  SeededRandom random(1);
  Offsets out;
  for (std::size_t i = 0; i < kOffsets; ++i) {
    out.small.push_back(random.next_u64() % (size_bytes / kSmall) * kSmall);
    out.large.push_back(random.next_u64() % (size_bytes / kLarge) * kLarge);
  }
  return out;
}

// Does op(offset) for slice_s, at least once; bytes a second.
template <class Op>
Result<double> timed(const Case& what, std::uint64_t size_bytes, const Offsets& offsets, double slice_s,
                     const Op& op) {
  const std::vector<std::uint64_t>& drawn = what.block == kSmall ? offsets.small : offsets.large;
  const int between_looks = what.block == kSmall ? 64 : 1;  // at the clock
  std::uint64_t sequential = 0;
  std::uint64_t blocks = 0;
  const double start = now_s();
  double elapsed = 0.0;
  while (elapsed < slice_s) {
    for (int i = 0; i < between_looks; ++i) {
      const std::uint64_t offset = what.random ? drawn[blocks % kOffsets] : sequential;
      if (!op(offset)) return errno_error(what.name);
      ++blocks;
      sequential += what.block;
      if (sequential == size_bytes) sequential = 0;
    }
    elapsed = now_s() - start;
  }
  return static_cast<double>(blocks * what.block) / elapsed;
}

bool moved_all(ssize_t moved, std::size_t wanted) {
  if (moved >= 0 && static_cast<std::size_t>(moved) != wanted) errno = ENOSPC;  // a short transfer
  return moved >= 0 && static_cast<std::size_t>(moved) == wanted;
}

Result<double> map_slice(const Case& what, const Target& target, std::uint64_t size_bytes,
                         const Offsets& offsets, std::span<char> buffer, double slice_s) {
  std::optional<Mapping> mapping;
  const char* data = nullptr;
  return timed(what, size_bytes, offsets, slice_s, [&](std::uint64_t offset) {
    if (!mapping) {
      auto made = Mapping::map(target.file, size_bytes, false);
      if (!made) return false;
      mapping = std::move(made).value();
      data = reinterpret_cast<const char*>(mapping->data());
    }
    std::memcpy(buffer.data(), data + offset, what.block);
    asm volatile("" : : "r"(buffer.data()) : "memory");
    return true;
  });
}

Result<double> fresh_slice(const Target& target, std::uint64_t size_bytes, std::span<const char> buffer) {
  if (::ftruncate(target.fresh.get(), 0) != 0) return errno_error(target.name + ": ftruncate");
  const double start = now_s();
  for (std::uint64_t offset = 0; offset < size_bytes; offset += kLarge) {
    if (!moved_all(::pwrite(target.fresh.get(), buffer.data(), kLarge, static_cast<off_t>(offset)), kLarge)) {
      return errno_error(target.name + ": write");
    }
  }
  return static_cast<double>(size_bytes) / (now_s() - start);
}

Result<double> slice(const Case& what, const Target& target, std::uint64_t size_bytes, const Offsets& offsets,
                     std::span<char> buffer, double slice_s) {
  const int fd = target.file.get();
  switch (what.access) {
    case Access::kRead:
      return timed(what, size_bytes, offsets, slice_s, [&](std::uint64_t offset) {
        return moved_all(::pread(fd, buffer.data(), what.block, static_cast<off_t>(offset)), what.block);
      });
    case Access::kWrite:
      return timed(what, size_bytes, offsets, slice_s, [&](std::uint64_t offset) {
        return moved_all(::pwrite(fd, buffer.data(), what.block, static_cast<off_t>(offset)), what.block);
      });
    case Access::kMap:
      return map_slice(what, target, size_bytes, offsets, buffer, slice_s);
    case Access::kFresh:
      break;
  }
  return fresh_slice(target, std::min(size_bytes, kFreshMax), buffer);
}

// The same for every target: created, and written once in 1 MiB from the start.
Result<void> make_files(Target& target, std::uint64_t size_bytes, std::span<const char> buffer) {
  GRADFS_TRY(target.file, open_file(target.directory + "/data", O_RDWR | O_CREAT | O_EXCL));
  GRADFS_TRY(target.fresh, open_file(target.directory + "/fresh", O_RDWR | O_CREAT | O_EXCL));
  for (std::uint64_t offset = 0; offset < size_bytes; offset += kLarge) {
    if (!moved_all(::pwrite(target.file.get(), buffer.data(), kLarge, static_cast<off_t>(offset)), kLarge)) {
      return errno_error(target.name + ": filling its file");
    }
  }
  return ok();
}

void remove_files(Target& target) {
  target.file.reset();
  target.fresh.reset();
  ::unlink((target.directory + "/data").c_str());
  ::unlink((target.directory + "/fresh").c_str());
}

class MountBench {
 public:
  MountBench(const Options& options, std::vector<Target> targets)
      : plan_(options.quick ? kQuick : kFull),
        size_bytes_(options.size_bytes),
        offsets_(random_offsets(options.size_bytes)),
        buffer_(kLarge, 'g'),
        targets_(std::move(targets)),
        figures_(kCases.size(), std::vector<std::vector<double>>(targets_.size())) {}

  ~MountBench() {
    for (Target& target : targets_) remove_files(target);
    show_progress("");
  }

  Result<void> run() {
    for (int generation = 0; generation < plan_.generations; ++generation) {
      for (std::size_t i = 0; i < targets_.size(); ++i) {
        GRADFS_TRYV(make_files(targets_[(i + static_cast<std::size_t>(generation)) % targets_.size()],
                               size_bytes_, buffer_));
      }
      for (std::size_t c = 0; c < kCases.size(); ++c) {
        GRADFS_TRYV(run_case(generation, c));
      }
      for (Target& target : targets_) remove_files(target);
      ::usleep(500'000);  // a deleted image goes a moment after its name
    }
    return ok();
  }

  [[nodiscard]] std::vector<Row> rows() const {
    std::vector<Row> out;
    for (std::size_t c = 0; c < kCases.size(); ++c) {
      const auto& of = figures_[c];
      Row row;
      row.name = kCases[c].name;
      row.unit = "GB/s";
      row.gradfs = median(of[0]) / 1e9;
      row.reference_name = targets_[1].name;
      row.reference = median(of[1]) / 1e9;
      row.ratio = paired_ratio(of[0], of[1]);
      row.also = {{targets_[2].name, median(of[2]) / 1e9}, {"ratio +-", paired_spread(of[0], of[1])}};
      row.repetitions = of[0].size();
      row.aim = Aim{kAim, true};
      out.push_back(std::move(row));
    }
    return out;
  }

 private:
  Result<void> run_case(int generation, std::size_t c) {
    for (int round = -1; round < plan_.rounds; ++round) {  // round -1 warms up
      show_progress(std::string(kCases[c].name) + ", round " +
                    std::to_string(generation * plan_.rounds + round + 1) + " of " +
                    std::to_string(plan_.generations * plan_.rounds));
      for (std::size_t i = 0; i < targets_.size(); ++i) {
        GRADFS_TRYV(check_interrupted());
        const std::size_t t = turn(static_cast<std::size_t>(round + 1), i, targets_.size());
        GRADFS_TRY(const double rate,
                   slice(kCases[c], targets_[t], size_bytes_, offsets_, buffer_, plan_.slice_s));
        if (round >= 0) figures_[c][t].push_back(rate);
      }
    }
    return ok();
  }

  Plan plan_;
  std::uint64_t size_bytes_;
  Offsets offsets_;
  std::vector<char> buffer_;
  std::vector<Target> targets_;
  std::vector<std::vector<std::vector<double>>> figures_;  // by case, target, round: bytes a second
};

}  // namespace

Result<Report> bench_mount(const Options& options) {
  GRADFS_TRY(const ScratchTmpfs tmpfs, ScratchTmpfs::mount(5 * options.size_bytes + (256ULL << 20)));
  GRADFS_TRY(const BareMount bare, BareMount::start(tmpfs.path()));
  GRADFS_TRY(const Subject subject, Subject::start(options, tmpfs.path()));
  GRADFS_TRY(const ScratchDirectory shm, ScratchDirectory::make("/dev/shm"));
  const PinnedThread pinned;

  std::vector<Target> targets(3);
  targets[0].name = subject.name();
  targets[0].directory = subject.path();
  targets[1].name = "bare mount";
  targets[1].directory = bare.path();
  targets[2].name = "/dev/shm";
  targets[2].directory = shm.path();
  MountBench bench(options, std::move(targets));
  GRADFS_TRYV(bench.run());
  Report report{"mount", bench.rows(), {}};
  report.notes = {
      "files of " + format_size(options.size_bytes) +
          ", written once in 1 MiB; the same loop over an open descriptor for all",
      "bare mount: a FUSE daemon that does nothing but passthrough, over a tmpfs with the worker's options",
      "one client thread on processor " + std::to_string(pinned.processor()) +
          ", slices in rotating order, files made anew " +
          "several times; the ratio is the median of the rounds' ratios, +- half the distance of their "
          "quartiles",
      "mmap: mapped anew in each slice, faults included"};
  return report;
}

}  // namespace gradfs::bench
