// gradfs-bench cycle: from a gradient in private memory to every page of the updated model readable, with a
// slot and with a fresh file, beside a memcpy of the gradient and the engine alone.
#include <fcntl.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "coproc/descent/layout.h"
#include "coproc/descent/safetensors.h"
#include "fs/base/clock.h"
#include "fs/base/fd.h"
#include "tools/bench/bench.h"
#include "tools/bench/cluster.h"
#include "tools/bench/lone_engine.h"
#include "tools/bench/scratch.h"
#include "tools/bench/stats.h"

namespace gradfs::bench {
namespace {

constexpr double kAim = 1.4;
constexpr double kMillisecond_s = 1e-3;
constexpr std::size_t kPage = 4096;
constexpr std::uint64_t kFirstStep =
    1'000'000'000;  // ten digits from the first to the last: the header keeps its length

struct Model {
  const char* name;
  const char* layers;
  int rounds;
  int quick_rounds;
};
constexpr std::array kModels = {
    Model{"1.86M", "784,1024,1024,10", 300, 40},
    Model{"14.3M", "2871,2048,2048,2048,15", 100, 12},
};

// Seconds since the last call.
class Lap {
 public:
  double operator()() {
    const double now = now_s();
    return now - std::exchange(last_, now);
  }

 private:
  double last_ = now_s();
};

// Reads one word of each page.
std::uint64_t touch(std::span<const std::byte> bytes) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at + sizeof sum <= bytes.size(); at += kPage) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    sum += word;
  }
  asm volatile("" : : "r"(sum));
  return sum;
}

// The header of a gradient file, in which only the digits of the step change.
class GradientHeader {
 public:
  static Result<GradientHeader> make(const SafetensorsHeader& model, const std::string& worker) {
    GradientHeader out;
    const Metadata metadata = {
        {"run", "gradfs-bench"}, {"worker", worker}, {"step", std::to_string(kFirstStep)}};
    GRADFS_TRY(out.text_, format_safetensors(model.tensors, metadata));
    out.digits_ = out.text_.find(std::to_string(kFirstStep));
    return out;
  }
  void next() {
    const std::string digits = std::to_string(++step_);
    text_.replace(digits_, digits.size(), digits);
  }
  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] std::uint64_t pushes() const { return step_ - kFirstStep; }

 private:
  std::string text_;
  std::size_t digits_ = 0;
  std::uint64_t step_ = kFirstStep;
};

Result<void> write_whole(int fd, const std::string& header, std::span<const std::byte> data) {
  const std::array<iovec, 2> parts = {iovec{const_cast<char*>(header.data()), header.size()},
                                      iovec{const_cast<std::byte*>(data.data()), data.size()}};
  const ssize_t written = ::pwritev(fd, parts.data(), parts.size(), 0);
  if (written < 0) return errno_error("writing a gradient");
  if (static_cast<std::size_t>(written) != header.size() + data.size())
    return Error(Errc::kIo, "a short write of a gradient");
  return ok();
}

struct Laps {
  std::vector<double> total, first, second, third, fourth;
};

class CycleBench {
 public:
  static Result<std::unique_ptr<CycleBench>> make(const std::string& directory, const std::string& tmpfs) {
    std::unique_ptr<CycleBench> out(new CycleBench);
    out->directory_ = directory;
    out->tmpfs_file_ = tmpfs + "/fresh";
    const std::string model_path = directory + "/model.safetensors";
    GRADFS_TRY(out->model_fd_, open_file(model_path, O_RDONLY));
    GRADFS_TRY(const SafetensorsHeader header, read_safetensors(out->model_fd_.get()));
    GRADFS_TRY(out->model_, Mapping::map(out->model_fd_, header.data_start + header.data_bytes, false));
    GRADFS_TRY(out->slot_header_, GradientHeader::make(header, "slot"));
    GRADFS_TRY(out->fresh_header_, GradientHeader::make(header, "fresh"));
    GRADFS_TRY(out->alone_, LoneEngine::make(tmpfs, model_path, out->slot_header_.text()));
    SeededRandom random(1);
    out->gradient_.resize(header.data_bytes / sizeof(float));
    for (float& value : out->gradient_) {
      value = (static_cast<float>(random.next_u64() >> 40) / 16777216.0F - 0.5F) * 1e-2F;
    }
    GRADFS_TRY(out->slot_, open_file(directory + "/slots/bench.safetensors", O_RDWR | O_CREAT | O_EXCL));
    GRADFS_TRYV(write_whole(out->slot_.get(), out->slot_header_.text(), out->gradient_bytes()));
    GRADFS_TRY(out->slot_map_,
               Mapping::map(out->slot_, out->slot_header_.text().size() + header.data_bytes, true));
    GRADFS_TRY(out->version_before_, out->version());
    return out;
  }
  ~CycleBench() { show_progress(""); }

  // Slots and fresh files each take turns with the reference for themselves: what becomes of a landed file
  // goes on in the background for a moment.
  Result<void> run(const Model& model, bool quick) {
    const int rounds = quick ? model.quick_rounds : model.rounds;
    GRADFS_TRYV(choose_filling(quick ? 5 : 15));
    slot_laps_ = {};
    GRADFS_TRYV(
        take_turns(std::string(model.name) + " slot", rounds,
                   {[this] { return measure_slot(); }, [this] { return measure_reference(slot_reference_); },
                    [this] { return measure_validation(); }, [this] { return measure_unprotected(); }}));
    GRADFS_TRYV(take_turns(
        std::string(model.name) + " fresh file", rounds,
        {[this] { return measure_fresh(); }, [this] { return measure_reference(fresh_reference_); },
         [this] { return measure_tmpfs(); }}));
    return check_version();
  }

  [[nodiscard]] std::vector<Row> rows(const Model& model) const {
    std::vector<Row> out;
    Row slot = row(std::string("cycle with a slot, ") + model.name, slot_laps_, slot_reference_);
    slot.aim = Aim{kAim, false};
    slot.also["fill"] = median(slot_laps_.first) / kMillisecond_s;
    slot.also["fsync"] = median(slot_laps_.second) / kMillisecond_s;
    slot.also["fsync - engine"] =
        (median(slot_laps_.second) - median(slot_reference_.second)) / kMillisecond_s;
    slot.also["touch"] = median(slot_laps_.third) / kMillisecond_s;
    slot.also["reference: memcpy"] = median(slot_reference_.first) / kMillisecond_s;
    slot.also["reference: engine"] = median(slot_reference_.second) / kMillisecond_s;
    slot.also["reference: touch"] = median(slot_reference_.third) / kMillisecond_s;
    slot.also["reference: p99"] = percentile(slot_reference_.total, 0.99) / kMillisecond_s;
    slot.also["validation alone"] = median(validation_) / kMillisecond_s;
    slot.also["kernel without crash safety"] = median(unprotected_) / kMillisecond_s;
    slot.also["cycle filled by mmap"] = median(by_map_) / kMillisecond_s;
    slot.also["cycle filled by pwrite"] = median(by_write_) / kMillisecond_s;
    slot.note = fill_by_map_ ? "filled through its map" : "filled by pwritev";
    out.push_back(std::move(slot));
    Row fresh = row(std::string("cycle with a fresh file, ") + model.name, fresh_laps_, fresh_reference_);
    fresh.also["create"] = median(fresh_laps_.first) / kMillisecond_s;
    fresh.also["write"] = median(fresh_laps_.second) / kMillisecond_s;
    fresh.also["close"] = median(fresh_laps_.third) / kMillisecond_s;
    fresh.also["touch"] = median(fresh_laps_.fourth) / kMillisecond_s;
    fresh.also["create + write + close in a tmpfs"] = median(tmpfs_) / kMillisecond_s;
    out.push_back(std::move(fresh));
    return out;
  }

 private:
  [[nodiscard]] static Row row(std::string name, const Laps& laps, const Laps& reference) {
    Row out;
    out.name = std::move(name);
    out.unit = "ms";
    out.gradfs = median(laps.total) / kMillisecond_s;
    out.reference_name = "memcpy + engine alone";
    out.reference = median(reference.total) / kMillisecond_s;
    out.ratio = paired_ratio(laps.total, reference.total);
    out.also["p99"] = percentile(laps.total, 0.99) / kMillisecond_s;
    out.repetitions = laps.total.size();
    return out;
  }

  [[nodiscard]] std::span<const std::byte> gradient_bytes() const {
    return std::as_bytes(std::span(gradient_));
  }

  Result<void> choose_filling(int rounds) {
    for (int round = -2; round < rounds; ++round) {
      for (const bool by_map : {round % 2 == 0, round % 2 != 0}) {
        GRADFS_TRYV(check_interrupted());
        fill_by_map_ = by_map;
        GRADFS_TRYV(measure_slot());
        if (round >= 0) (by_map ? by_map_ : by_write_).push_back(slot_laps_.total.back());
      }
    }
    fill_by_map_ = median(by_map_) <= median(by_write_);
    return ok();
  }

  static Result<void> take_turns(const std::string& what, int rounds,
                                 const std::vector<std::function<Result<void>()>>& subjects) {
    for (int round = 0; round < rounds; ++round) {
      show_progress(what + ", round " + std::to_string(round + 1) + " of " + std::to_string(rounds));
      for (std::size_t i = 0; i < subjects.size(); ++i) {
        GRADFS_TRYV(check_interrupted());
        GRADFS_TRYV(subjects[turn(static_cast<std::size_t>(round), i, subjects.size())]());
      }
    }
    return ok();
  }

  Result<void> measure_validation() {
    Lap lap;
    GRADFS_TRYV(alone_->validate());
    validation_.push_back(lap());
    return ok();
  }

  Result<void> measure_unprotected() {
    Lap lap;
    GRADFS_TRYV(alone_->apply_unprotected());
    unprotected_.push_back(lap());
    return ok();
  }

  Result<void> measure_slot() {
    slot_header_.next();
    Lap lap;
    if (fill_by_map_) {
      std::memcpy(slot_map_.data(), slot_header_.text().data(), slot_header_.text().size());
      std::memcpy(slot_map_.data() + slot_header_.text().size(), gradient_.data(), gradient_bytes().size());
    } else {
      GRADFS_TRYV(write_whole(slot_.get(), slot_header_.text(), gradient_bytes()));
    }
    const double filled = lap();
    if (::fsync(slot_.get()) != 0) return errno_error("fsync of a slot");
    const double pushed = lap();
    touch(model_.bytes());
    const double touched = lap();
    slot_laps_.total.push_back(filled + pushed + touched);
    slot_laps_.first.push_back(filled);
    slot_laps_.second.push_back(pushed);
    slot_laps_.third.push_back(touched);
    return ok();
  }

  Result<void> measure_fresh() {
    fresh_header_.next();
    const std::string path =
        directory_ + "/gradients/g" + std::to_string(fresh_header_.pushes()) + ".safetensors";
    Lap lap;
    UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!file) return errno_error(path);
    const double created = lap();
    GRADFS_TRYV(write_whole(file.get(), fresh_header_.text(), gradient_bytes()));
    const double written = lap();
    if (::close(file.release()) != 0) return errno_error("close of " + path);
    const double closed = lap();
    touch(model_.bytes());
    const double touched = lap();
    fresh_laps_.total.push_back(created + written + closed + touched);
    fresh_laps_.first.push_back(created);
    fresh_laps_.second.push_back(written);
    fresh_laps_.third.push_back(closed);
    fresh_laps_.fourth.push_back(touched);
    return ok();
  }

  // What the same create, write and close cost where nothing comes of them.
  Result<void> measure_tmpfs() {
    ::unlink(tmpfs_file_.c_str());
    Lap lap;
    UniqueFd file(::open(tmpfs_file_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!file) return errno_error(tmpfs_file_);
    GRADFS_TRYV(write_whole(file.get(), fresh_header_.text(), gradient_bytes()));
    file.reset();
    tmpfs_.push_back(lap());
    return ok();
  }

  Result<void> measure_reference(Laps& laps) {
    Lap lap;
    std::memcpy(alone_->gradient_data(), gradient_.data(), gradient_bytes().size());
    const double copied = lap();
    GRADFS_TRYV(alone_->apply());
    const double applied = lap();
    touch(alone_->model_bytes());
    const double touched = lap();
    laps.total.push_back(copied + applied + touched);
    laps.first.push_back(copied);
    laps.second.push_back(applied);
    laps.third.push_back(touched);
    return ok();
  }

  [[nodiscard]] Result<std::uint64_t> version() const {
    std::array<char, 32> text{};
    const ssize_t got = ::fgetxattr(model_fd_.get(), "user.gradfs.version", text.data(), text.size() - 1);
    if (got < 0) return errno_error("user.gradfs.version of " + directory_ + "/model.safetensors");
    return std::strtoull(text.data(), nullptr, 10);
  }

  // A push that did nothing would be the fastest of all.
  Result<void> check_version() const {
    GRADFS_TRY(const std::uint64_t now, version());
    const std::uint64_t pushes = slot_header_.pushes() + fresh_header_.pushes();
    if (now - version_before_ == pushes) return ok();
    return Error(Errc::kCorrupt, std::to_string(pushes) +
                                     " gradients were pushed, and the version moved by " +
                                     std::to_string(now - version_before_));
  }

  std::string directory_;
  std::string tmpfs_file_;
  UniqueFd model_fd_;
  Mapping model_;
  UniqueFd slot_;
  Mapping slot_map_;
  GradientHeader slot_header_;
  GradientHeader fresh_header_;
  std::vector<float> gradient_;
  std::unique_ptr<LoneEngine> alone_;
  std::uint64_t version_before_ = 0;
  bool fill_by_map_ = true;

  Laps slot_laps_;       // fill, fsync, touch
  Laps fresh_laps_;      // create, write, close, touch
  Laps slot_reference_;  // memcpy, engine, touch
  Laps fresh_reference_;
  std::vector<double> validation_;
  std::vector<double> unprotected_;
  std::vector<double> tmpfs_;  // create, write, close
  std::vector<double> by_map_;
  std::vector<double> by_write_;
};

}  // namespace

Result<Report> bench_cycle(const Options& options) {
  GRADFS_TRY(const ScratchTmpfs tmpfs, ScratchTmpfs::mount(2ULL << 30));
  GRADFS_TRY(const GradfsUnderTest gradfs, GradfsUnderTest::start(options));
  Report report{"cycle", {}, {}};
  for (const Model& model : kModels) {
    GRADFS_TRY(const ScratchDirectory scratch, ScratchDirectory::make(tmpfs.path()));
    GRADFS_TRY(const std::string directory, gradfs.create_model(model.name, model.layers));
    GRADFS_TRY(const std::unique_ptr<CycleBench> bench, CycleBench::make(directory, scratch.path()));
    GRADFS_TRYV(bench->run(model, options.quick));
    for (Row& row : bench->rows(model)) report.rows.push_back(std::move(row));
  }
  report.notes = {
      "Adam; from a gradient in private memory until one word of each page of the mapped, updated model has "
      "been read",
      "slot: fill it, with a new step in its header; fsync; read the model. fresh file: open, write, close "
      "in gradients/; read",
      "memcpy + engine alone: the gradient into a map of the same kind of tmpfs, the engine with its crash "
      "safety and as many "
      "threads, the same reading; no filesystem and no validation. All in rotating order in one run",
      "fsync - engine: what the round trips, validation, commit and the reply cost"};
  return report;
}

}  // namespace gradfs::bench
