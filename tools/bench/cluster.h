// The gradfs that is measured: a mount that is there already, or a cluster started for the run by fsctl from
// the folder of this program.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fs/base/result.h"
#include "tools/bench/bare_mount.h"
#include "tools/bench/bench.h"
#include "tools/bench/scratch.h"

namespace gradfs::bench {

// Runs a program to its end in a session of its own, so that a Ctrl-C on the terminal reaches only us. Its
// output goes to log_path; an exit status other than 0 is kIo with the last line of it. environment:
// "NAME=VALUE", added to ours.
Result<void> run_program(const std::vector<std::string>& arguments,
                         const std::vector<std::string>& environment, const std::string& log_path);

class GradfsUnderTest {
 public:
  // Start it before there are threads and before the thread is pinned.
  static Result<GradfsUnderTest> start(const Options& options);
  GradfsUnderTest() = default;
  GradfsUnderTest(GradfsUnderTest&& other) noexcept;
  GradfsUnderTest& operator=(GradfsUnderTest&&) = delete;
  // Removes what was made; takes an own cluster down and frees its data.
  ~GradfsUnderTest();

  // A directory of this run alone, inside the mount.
  [[nodiscard]] const std::string& path() const noexcept { return work_.path(); }
  // fsctl model create path()/NAME with Adam; returns the directory.
  [[nodiscard]] Result<std::string> create_model(const std::string& name, const std::string& layers) const;

 private:
  ScratchDirectory top_;  // an own cluster's directory and mount point; "" for --mount
  ScratchDirectory work_;
  std::vector<std::string> environment_;
  ScratchDirectory logs_;
};

// What stands in the first column: gradfs, or with against_itself a second bare mount.
class Subject {
 public:
  // backing: for the second bare mount, as in BareMount::start.
  static Result<Subject> start(const Options& options, const std::string& backing);

  [[nodiscard]] const std::string& path() const { return gradfs_ ? gradfs_->path() : stand_in_->path(); }
  [[nodiscard]] std::string name() const { return gradfs_ ? "gradfs" : "second bare mount"; }

 private:
  std::optional<GradfsUnderTest> gradfs_;
  std::optional<BareMount> stand_in_;
};

}  // namespace gradfs::bench
