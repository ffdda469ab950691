// Test accuracy of whatever parameters a source has now.
#pragma once

#include <vector>

#include "trainer/dataset.h"
#include "trainer/exchange.h"
#include "trainer/network.h"

namespace gradfs::trainer {

// One thread. test must outlive it.
class Evaluator {
 public:
  Evaluator(const Samples& test, std::vector<DenseLayer> layers, std::uint64_t parameters);

  // The share of the test samples that the source's parameters classify rightly. They are copied first, so
  // that all samples meet the same ones.
  Result<double> accuracy(ParameterSource& source);

 private:
  const Samples& test_;
  Network network_;
  std::vector<float> parameters_;
};

}  // namespace gradfs::trainer
