// Generated data sets of the shapes that "Distributed Deep Learning on Spark & Tachyon" (Strata 2015) trained
// on, with a planted function, so that an accuracy means something.
//
// A row has latent values, independent and about normal; feature j is latent j mod latents and noise of its
// own, with mean 0 and variance 1 together. What all the features of a latent add up to, s, is what the label
// follows from: it is the class with the highest score of a random network with one hidden layer,
//   score_c = bias_c + sum over h of v[c][h] * max(0, sum over some of w[h][i] s[i]),
// whose biases make all classes about equally frequent. In a known share of the rows it is a class drawn at
// random instead. So the label is a function of the features but for that share, and best_accuracy can be
// reached.
//
// All of it is whole numbers up to a feature's last step, one multiplication: every machine and compiler
// generates the same bits.
#pragma once

#include <cstdint>
#include <memory>

#include "trainer/dataset.h"

namespace gradfs::trainer {

struct SyntheticShape {
  const char* name;
  std::size_t features;
  std::size_t classes;        // 2 to kSyntheticClassesMax
  std::size_t latents;        // at most features and kSyntheticLatentsMax
  std::size_t hidden;         // units of the planted network
  std::size_t inputs;         // latents that a unit reads
  std::uint32_t loading_256;  // of a latent in a feature, in 256ths; 256 is without noise
  double label_noise;         // the share of labels that is drawn at random
};
inline constexpr std::size_t kSyntheticClassesMax = 16;
inline constexpr std::size_t kSyntheticLatentsMax = 32;
inline constexpr double kLabelNoise = 0.02;

// Seen with two hidden layers of 256, Adam at 1e-3 and batches of 128: higgs 93 to 95 % after 38,400 rows and
// 96 % after 200,000 (a linear model: 83 to 84 %; seeds 2 and 3); molecular 67 % after 25,600 rows, 80 %
// after 128,000 and 83 % after 200,000 (a linear model: 54 % after 20,000; seed 1).
inline constexpr SyntheticShape kHiggs = {"higgs", 28, 2, 28, 12, 6, 256, kLabelNoise};
inline constexpr SyntheticShape kMolecular = {"molecular", 2871, 15, 4, 8, 2, 128, kLabelNoise};

// No model is right more often: a label drawn at random is the function's with 1 / classes.
constexpr double best_accuracy(const SyntheticShape& shape) {
  return 1 - shape.label_noise * (1 - 1 / static_cast<double>(shape.classes));
}

// Rows of the function that seed plants; stream tells sets of rows of one function apart (0 for training, 1
// for testing; below 2^31): no row is in two of them. rows: 1 to 2^32 - 1. Nothing is kept: a row follows
// from seed, stream and its number alone.
std::unique_ptr<Samples> make_synthetic_samples(const SyntheticShape& shape, std::uint64_t seed,
                                                std::uint64_t stream, std::size_t rows);

}  // namespace gradfs::trainer
