#include "trainer/evaluator.h"

#include <algorithm>

namespace gradfs::trainer {
namespace {

constexpr std::size_t kBatch = 250;

}  // namespace

Evaluator::Evaluator(const Samples& test, std::vector<DenseLayer> layers, std::uint64_t parameters)
    : test_(test), network_(std::move(layers), kBatch), parameters_(parameters) {}

Result<double> Evaluator::accuracy(ParameterSource& source) {
  GRADFS_TRYV(source.fetch(parameters_));
  std::vector<std::uint32_t> rows(kBatch);
  std::vector<std::uint8_t> labels(kBatch);
  std::size_t correct = 0;
  for (std::size_t begin = 0; begin < test_.rows(); begin += kBatch) {
    const std::size_t count = std::min(kBatch, test_.rows() - begin);
    for (std::size_t i = 0; i < count; ++i) rows[i] = static_cast<std::uint32_t>(begin + i);
    GRADFS_TRYV(test_.gather(std::span(rows).first(count), network_.batch(), labels));
    correct += network_.count_correct(parameters_.data(), std::span(labels).first(count));
  }
  return static_cast<double>(correct) / static_cast<double>(test_.rows());
}

}  // namespace gradfs::trainer
