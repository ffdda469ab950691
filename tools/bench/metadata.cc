// gradfs-bench metadata: create, stat, open, rename, unlink, mkdir, rmdir by one thread, beside empty FUSE
// round trips.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fs/base/fd.h"
#include "tools/bench/bare_mount.h"
#include "tools/bench/bench.h"
#include "tools/bench/cluster.h"
#include "tools/bench/scratch.h"
#include "tools/bench/stats.h"

namespace gradfs::bench {
namespace {

constexpr double kMicrosecond_s = 1e-6;

struct Plan {
  int rounds;
  int names;  // operations of a kind, in each round, on each target
};
constexpr Plan kFull{25, 100};
constexpr Plan kQuick{5, 40};

enum class Kind {
  kCreate,
  kStatCached,
  kStatDropped,
  kStatMissing,
  kOpen,
  kRename,
  kUnlink,
  kMkdir,
  kRmdir,
  kTrip
};

struct Step {
  Kind kind;
  const char* name;
};

// In an order in which each finds what the one before it left.
constexpr std::array kSteps = {
    Step{Kind::kCreate, "create + close"},
    Step{Kind::kStatCached, "stat, cached"},
    Step{Kind::kStatDropped, "stat, not cached"},
    Step{Kind::kStatMissing, "stat of a missing name"},
    Step{Kind::kOpen, "open + close, read-only"},
    Step{Kind::kRename, "rename"},
    Step{Kind::kUnlink, "unlink"},
    Step{Kind::kMkdir, "mkdir"},
    Step{Kind::kRmdir, "rmdir"},
    Step{Kind::kTrip, "empty round trip"},
};
constexpr std::size_t kTripStep = kSteps.size() - 1;

// Three shrinks: the first only takes the mark of recent use off.
bool drop_names() {
  auto file = open_file("/proc/sys/vm/drop_caches", O_WRONLY);
  if (!file) return false;
  for (int i = 0; i < 3; ++i) {
    if (::pwrite(file.value().get(), "2", 1, 0) != 1) return false;
  }
  ::usleep(20'000);  // the FORGETs that follow
  return true;
}

struct Target {
  std::string name;
  std::string directory;
  const BareMount* bare = nullptr;
};

struct Figures {
  std::vector<double> rounds;  // median of each round, seconds
  std::vector<double> all;
  double requests = 0.0;  // waited for, an operation, on the bare mount
};

class MetadataBench {
 public:
  MetadataBench(const Options& options, std::vector<Target> targets)
      : plan_(options.quick ? kQuick : kFull),
        targets_(std::move(targets)),
        figures_(kSteps.size(), std::vector<Figures>(targets_.size())) {}
  ~MetadataBench() { show_progress(""); }

  Result<void> run() {
    can_drop_ = drop_names();
    measure_clock();
    GRADFS_TRY(trip_file_, open_file(targets_[1].directory + "/trip", O_RDWR | O_CREAT));
    for (int round = -1; round < plan_.rounds; ++round) {  // round -1 warms up
      show_progress("round " + std::to_string(round + 1) + " of " + std::to_string(plan_.rounds));
      for (std::size_t s = 0; s < kSteps.size(); ++s) {
        if (kSteps[s].kind == Kind::kStatDropped && !can_drop_) continue;
        GRADFS_TRYV(run_step(round, s));
      }
    }
    return ok();
  }

  [[nodiscard]] std::vector<Row> rows() const {
    const std::vector<double>& trips = figures_[kTripStep][1].rounds;
    std::vector<Row> out;
    for (std::size_t s = 0; s < kTripStep; ++s) {
      const auto& of = figures_[s];
      if (of[0].all.empty()) continue;
      const double requests = of[1].requests;
      const bool asks = requests >= 0.5;
      std::vector<double> reference = asks ? trips : of[2].rounds;
      if (asks) {
        for (double& value : reference) value *= requests;
      }
      Row row;
      row.name = kSteps[s].name;
      row.unit = "us";
      row.gradfs = median(of[0].all) / kMicrosecond_s;
      row.reference_name =
          asks ? figure(requests) + (requests < 1.005 ? " empty round trip" : " empty round trips")
               : "tmpfs (nothing is asked)";
      row.reference = median(reference) / kMicrosecond_s;
      row.ratio = paired_ratio(of[0].rounds, reference);
      row.also = {{"p99", percentile(of[0].all, 0.99) / kMicrosecond_s},
                  {targets_[1].name, median(of[1].all) / kMicrosecond_s},
                  {targets_[1].name + " p99", percentile(of[1].all, 0.99) / kMicrosecond_s},
                  {targets_[2].name, median(of[2].all) / kMicrosecond_s}};
      row.repetitions = of[0].all.size();
      out.push_back(std::move(row));
    }
    return out;
  }

  [[nodiscard]] double trip_us() const { return median(figures_[kTripStep][1].all) / kMicrosecond_s; }
  [[nodiscard]] bool can_drop() const { return can_drop_; }

 private:
  static std::string figure(double requests) {
    const long hundredths = std::lround(requests * 100.0);
    std::string out = std::to_string(hundredths / 100);
    if (hundredths % 100 != 0)
      out += "." + std::to_string(hundredths % 100 / 10) + std::to_string(hundredths % 10);
    return out;
  }

  void measure_clock() {
    std::vector<double> empty;
    for (int i = 0; i < 1000; ++i) {
      const double start = now_s();
      empty.push_back(now_s() - start);
    }
    clock_s_ = median(std::move(empty));
  }

  Result<void> run_step(int round, std::size_t s) {
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      GRADFS_TRYV(check_interrupted());
      const std::size_t t = turn(static_cast<std::size_t>(round + 1), i, targets_.size());
      if (kSteps[s].kind == Kind::kTrip && targets_[t].bare == nullptr) continue;
      std::vector<double> times;
      prepare(kSteps[s].kind, targets_[t]);
      const std::uint64_t before = targets_[t].bare != nullptr ? targets_[t].bare->requests().waited : 0;
      for (int n = 0; n < plan_.names; ++n) {
        const std::string name = targets_[t].directory + "/n" + std::to_string(n);
        const std::string other = targets_[t].directory + "/m" + std::to_string(n);
        const std::string missing =
            targets_[t].directory + "/x" + std::to_string(round) + "-" + std::to_string(n);
        const double start = now_s();
        const bool done = once(kSteps[s].kind, name, other, missing);
        times.push_back(now_s() - start - clock_s_);
        if (!done) return errno_error(targets_[t].name + ": " + kSteps[s].name);
      }
      if (round < 0) continue;
      Figures& figures = figures_[s][t];
      if (targets_[t].bare != nullptr) {
        const auto requests = static_cast<double>(targets_[t].bare->requests().waited - before);
        figures.requests += requests / plan_.names / plan_.rounds;
      }
      figures.all.insert(figures.all.end(), times.begin(), times.end());
      figures.rounds.push_back(median(std::move(times)));
    }
    return ok();
  }

  void prepare(Kind kind, const Target& target) const {
    if (kind == Kind::kStatDropped) drop_names();  // of all targets
    if (kind != Kind::kStatCached && kind != Kind::kOpen) return;
    for (int n = 0; n < plan_.names; ++n) {
      struct stat info{};
      ::stat((target.directory + "/n" + std::to_string(n)).c_str(), &info);
    }
  }

  // The operation, and nothing else.
  [[nodiscard]] bool once(Kind kind, const std::string& name, const std::string& other,
                          const std::string& missing) const {
    struct stat info{};
    switch (kind) {
      case Kind::kCreate:
        return open_and_close(name, O_WRONLY | O_CREAT | O_EXCL);
      case Kind::kStatCached:
      case Kind::kStatDropped:
        return ::stat(name.c_str(), &info) == 0;
      case Kind::kStatMissing:
        return ::stat(missing.c_str(), &info) != 0 && errno == ENOENT;
      case Kind::kOpen:
        return open_and_close(name, O_RDONLY);
      case Kind::kRename:
        return ::rename(name.c_str(), other.c_str()) == 0;
      case Kind::kUnlink:
        return ::unlink(other.c_str()) == 0;
      case Kind::kMkdir:
        return ::mkdir(name.c_str(), 0755) == 0;
      case Kind::kRmdir:
        return ::rmdir(name.c_str()) == 0;
      case Kind::kTrip:
        break;
    }
    return ::fsync(trip_file_.get()) == 0;
  }

  static bool open_and_close(const std::string& name, int flags) {
    const int fd = ::open(name.c_str(), flags | O_CLOEXEC, 0644);
    return fd >= 0 && ::close(fd) == 0;
  }

  Plan plan_;
  std::vector<Target> targets_;
  std::vector<std::vector<Figures>> figures_;  // by step, target
  UniqueFd trip_file_;                         // on the bare mount
  double clock_s_ = 0.0;
  bool can_drop_ = false;
};

std::string placement(const Options& options, int processor) {
  if (processor < 0) return "one thread; it and the daemons run where the kernel puts them";
  const std::string where = "processor " + std::to_string(processor);
  if (options.mount.empty())
    return "one thread; it and all daemons on " + where +
           ": a wake-up of another one costs ten times as much";
  return "one thread and the bare mount's daemon on " + where + ", gradfs's daemons where they are";
}

}  // namespace

Result<Report> bench_metadata(const Options& options) {
  std::optional<PinnedThread> pinned;  // first, so that all that is started inherits it
  if (!options.unpinned) pinned.emplace();
  GRADFS_TRY(const ScratchTmpfs tmpfs, ScratchTmpfs::mount(64 << 20));
  GRADFS_TRY(const BareMount bare, BareMount::start(""));
  GRADFS_TRY(const Subject subject, Subject::start(options, ""));
  MetadataBench bench(options, {{subject.name(), subject.path(), nullptr},
                                {"bare mount", bare.path(), &bare},
                                {"tmpfs", tmpfs.path(), nullptr}});
  GRADFS_TRYV(bench.run());
  Report report{"metadata", bench.rows(), {}};
  char trip[64];
  std::snprintf(trip, sizeof trip, "an empty round trip took %.1f us: ", bench.trip_us());
  report.notes = {
      trip + std::string("fsync of a file on a bare mount, whose daemon has one thread and answers at once"),
      "reference: that, times the requests that the bare mount's kernel waits for in the operation (counted "
      "in this run; "
      "RELEASE and FORGET are sent, too, but not waited for)",
      "bare mount: the same operation there, names in the daemon's memory and nothing else done",
      placement(options, pinned ? pinned->processor() : -1),
      bench.can_drop() ? "stat, not cached: the kernel's names were dropped before (drop_caches)"
                       : "stat, not cached: left out, /proc/sys/vm/drop_caches cannot be written"};
  return report;
}

}  // namespace gradfs::bench
