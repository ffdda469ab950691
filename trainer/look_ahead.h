// Weight prediction for asynchronous training. While a worker computes a gradient, those of others are
// applied, so the gradient belongs to parameters that are gone when it is. They move smoothly, though (an
// optimizer's averages see to that): a worker that has read them before can tell where they will be, and
// computes its gradient there:
//
//   at = now + factor * (now - before)
//
// As SpecTrain does for pipelines (Chen, Yang, Cheng: "Efficient and Robust Parallel DNN Training through
// Model Parallelism on Multi-GPU Platform", 2018), but from the parameters alone, which is all that a file
// shows.
#pragma once

#include <span>
#include <vector>

namespace gradfs::trainer {

// One thread.
class LookAhead {
 public:
  explicit LookAhead(double factor) : factor_(static_cast<float>(factor)) {}

  // now: the parameters, read once each, though others may write them meanwhile. Returns where to compute, as
  // many floats, valid until the next call; the first time, with nothing to tell from, now itself.
  const float* at(std::span<const float> now);

 private:
  const float factor_;
  std::vector<float> before_;
  std::vector<float> ahead_;
};

}  // namespace gradfs::trainer
