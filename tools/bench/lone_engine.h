// The descent engine without a filesystem around it, for comparison: a copy of a model in a tmpfs like the
// worker's, updated by Adam with as many threads as a worker has.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "coproc/descent/engine.h"
#include "coproc/descent/gradient.h"
#include "fs/base/fd.h"
#include "fs/base/result.h"
#include "fs/base/thread_pool.h"

namespace gradfs::bench {

class LoneEngine {
 public:
  // directory: in a tmpfs. model_path: copied. gradient_header: as in a gradient file of that model.
  static Result<std::unique_ptr<LoneEngine>> make(const std::string& directory, const std::string& model_path,
                                                  const std::string& gradient_header);

  // Where the gradient file's data is mapped: parameters() floats.
  [[nodiscard]] std::byte* gradient_data() const { return gradient_file_.data() + gradient_start_; }
  [[nodiscard]] std::span<const std::byte> model_bytes() const { return model_.bytes(); }
  [[nodiscard]] std::uint64_t parameters() const { return engine_->layout().parameters(); }

  // One Adam step with what is in gradient_data().
  Result<void> apply();
  // What a worker does before it commits a push: maps the gradient file, parses its header, looks at every
  // value.
  Result<void> validate();
  // The same arithmetic over the same amount of memory (arrays of its own) without scratch stripes, numbers
  // and watermark: what crash safety costs is the difference.
  Result<void> apply_unprotected();

 private:
  explicit LoneEngine(std::size_t threads) : pool_(threads) {}

  ThreadPool pool_;
  DescentConfig config_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Gradient> gradient_;
  Mapping model_;
  UniqueFd gradient_fd_;
  Mapping gradient_file_;
  std::uint64_t gradient_start_ = 0;
  Mapping unprotected_;  // parameters, exp_avg, exp_avg_sq
  std::uint64_t unprotected_steps_ = 0;
};

}  // namespace gradfs::bench
