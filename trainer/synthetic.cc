#include "trainer/synthetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "fs/base/check.h"
#include "fs/base/clock.h"

namespace gradfs::trainer {
namespace {

// A value comes from 32 random bits as the sum of their four bytes, less the mean of that: about normal.
constexpr std::int32_t kByteSumMean = 510;
constexpr float kByteSumDeviation = 147.8005F;  // the root of 4 * (256^2 - 1) / 12

// A feature is (loading * latent + noise * value) / kOne in these units, and loading^2 + noise^2 = kOne^2.
constexpr std::int32_t kOne = 256;

constexpr std::uint64_t kBalanceStream = std::uint64_t{1} << 31;  // no caller's
constexpr std::size_t kBalanceRows = 2048;
constexpr std::int64_t kBalanceRounds = 60;
constexpr std::uint32_t kGolden = 0x9e3779b9;
// Features are written so many at a time: the latents, as often as they go into that.
constexpr std::size_t kTile = 64;
static_assert(kTile >= kSyntheticLatentsMax);

constexpr std::int32_t to_value(std::uint32_t bits) {
  const std::uint32_t pairs = (bits & 0x00ff00ffU) + ((bits >> 8) & 0x00ff00ffU);
  return static_cast<std::int32_t>((pairs & 0xffffU) + (pairs >> 16)) - kByteSumMean;
}

// Every bit of x reaches every bit (Wellons, "Prospecting for Hash Functions", 2018). 32 bits wide, because
// that is what vector units multiply.
constexpr std::uint32_t mix(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  x ^= x >> 16;
  return x;
}

using Latents = std::array<std::int32_t, kSyntheticLatentsMax>;
using Scores = std::array<std::int64_t, kSyntheticClassesMax>;

// The label as a function of a row's latents.
class PlantedNetwork {
 public:
  PlantedNetwork(const SyntheticShape& shape, std::uint64_t seed)
      : classes_(shape.classes), hidden_(shape.hidden), inputs_(shape.inputs) {
    SeededRandom random(seed);
    const auto draw = [&] { return to_value(static_cast<std::uint32_t>(random.next_u64() >> 32)); };
    for (std::size_t unit = 0; unit < hidden_; ++unit) {
      for (std::size_t i = 0; i < inputs_; ++i) {
        sources_.push_back(static_cast<std::uint32_t>(random.next_u64() % shape.latents));
        weights_.push_back(draw());
      }
      for (std::size_t c = 0; c < classes_; ++c) outputs_.push_back(draw());
    }
  }

  // Chooses the biases with which each class has about as many of these rows as any other. Each round lowers
  // the bias of a class that has too many, and raises that of one with too few.
  void balance(const std::vector<Latents>& rows) {
    std::vector<Scores> scores;
    scores.reserve(rows.size());
    for (const Latents& latents : rows) scores.push_back(score(latents));
    const auto count = static_cast<std::int64_t>(rows.size());
    std::int64_t spread = 0;
    for (std::size_t c = 0; c < classes_; ++c) {
      std::int64_t sum = 0;
      for (const Scores& of_row : scores) sum += of_row[c] / count;
      biases_[c] = -sum;
      for (const Scores& of_row : scores) spread += std::abs(of_row[c] - sum) / count;
    }
    spread /= static_cast<std::int64_t>(classes_);
    for (std::int64_t round = 0; round < kBalanceRounds; ++round) {
      Scores rows_of{};
      for (const Scores& of_row : scores) ++rows_of[highest(of_row)];
      for (std::size_t c = 0; c < classes_; ++c) {
        const std::int64_t excess = rows_of[c] * static_cast<std::int64_t>(classes_) - count;
        biases_[c] -= spread / (count * (2 + round / 4)) * excess;
      }
    }
  }

  [[nodiscard]] std::uint8_t label(const Latents& latents) const {
    return static_cast<std::uint8_t>(highest(score(latents)));
  }

 private:
  [[nodiscard]] Scores score(const Latents& latents) const {
    Scores scores{};
    const std::int32_t* output = outputs_.data();
    for (std::size_t unit = 0; unit < hidden_; ++unit, output += classes_) {
      std::int32_t sum = 0;
      for (std::size_t i = unit * inputs_; i < (unit + 1) * inputs_; ++i)
        sum += weights_[i] * latents[sources_[i]];
      const std::int64_t active = std::max(0, sum);
      for (std::size_t c = 0; c < classes_; ++c) scores[c] += output[c] * active;
    }
    return scores;
  }

  [[nodiscard]] std::size_t highest(const Scores& scores) const {
    std::size_t best = 0;
    for (std::size_t c = 1; c < classes_; ++c) {
      if (scores[c] + biases_[c] > scores[best] + biases_[best]) best = c;
    }
    return best;
  }

  const std::size_t classes_;
  const std::size_t hidden_;
  const std::size_t inputs_;
  std::vector<std::uint32_t> sources_;  // [hidden][inputs]: latents
  std::vector<std::int32_t> weights_;   // [hidden][inputs]
  std::vector<std::int32_t> outputs_;   // [hidden][classes]
  Scores biases_{};
};

std::uint64_t mixed(std::uint64_t seed) { return SeededRandom(seed).next_u64(); }

class SyntheticSamples final : public Samples {
 public:
  SyntheticSamples(const SyntheticShape& shape, std::uint64_t seed, std::uint64_t stream, std::size_t rows)
      : shape_(shape),
        seed_(mixed(seed ^ shape.features)),
        stream_(stream),
        rows_(rows),
        loading_(static_cast<std::int32_t>(shape.loading_256)),
        noise_(static_cast<std::int32_t>(
            std::lround(std::sqrt(static_cast<double>(kOne * kOne - loading_ * loading_))))),
        noise_labels_(static_cast<std::uint32_t>(shape.label_noise * 4294967296.0)),
        network_(shape, ~seed_) {
    GRADFS_CHECK(shape.classes >= 2 && shape.classes <= kSyntheticClassesMax &&
                 shape.latents <= shape.features && shape.latents <= kSyntheticLatentsMax && loading_ > 0 &&
                 loading_ <= kOne);
    GRADFS_CHECK(stream < kBalanceStream && rows > 0 && rows <= std::numeric_limits<std::uint32_t>::max());
    std::vector<Latents> latents(kBalanceRows);
    std::vector<float> features(shape.features);
    for (std::size_t row = 0; row < kBalanceRows; ++row) {
      SeededRandom random = random_of(kBalanceStream, row);
      latents[row] = write_features(random, features.data());
    }
    network_.balance(latents);
  }

  [[nodiscard]] std::size_t rows() const noexcept override { return rows_; }
  [[nodiscard]] std::size_t features() const noexcept override { return shape_.features; }
  [[nodiscard]] std::size_t classes() const noexcept override { return shape_.classes; }

  [[nodiscard]] Result<void> gather(std::span<const std::uint32_t> rows, std::span<float> features,
                                    std::span<std::uint8_t> labels) const override {
    GRADFS_CHECK(features.size() >= rows.size() * shape_.features && labels.size() >= rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      GRADFS_CHECK(rows[i] < rows_);
      SeededRandom random = random_of(stream_, rows[i]);
      const Latents seen = write_features(random, features.data() + i * shape_.features);
      const std::uint64_t chance = random.next_u64();
      labels[i] = static_cast<std::uint32_t>(chance) < noise_labels_
                      ? static_cast<std::uint8_t>((chance >> 32) % shape_.classes)
                      : network_.label(seen);
    }
    return ok();
  }

 private:
  // The generator's numbers are a bijection of where it starts: two rows never begin with the same one.
  [[nodiscard]] SeededRandom random_of(std::uint64_t stream, std::uint64_t row) const {
    return SeededRandom(seed_ + (stream << 32 | row));
  }

  // Returns the latents as the features show them.
  Latents write_features(SeededRandom& random, float* out) const {
    const std::size_t latents = shape_.latents;
    const std::size_t tile = std::min(kTile, shape_.features) / latents * latents;
    std::array<std::int32_t, kTile> latent;
    std::array<std::int32_t, kTile> sums{};
    for (std::size_t z = 0; z < latents; z += 2) {
      const std::uint64_t bits = random.next_u64();
      latent[z] = loading_ * to_value(static_cast<std::uint32_t>(bits));
      if (z + 1 < latents) latent[z + 1] = loading_ * to_value(static_cast<std::uint32_t>(bits >> 32));
    }
    for (std::size_t z = latents; z < tile; ++z) latent[z] = latent[z - latents];
    const auto key = static_cast<std::uint32_t>(random.next_u64());
    for (std::size_t begin = 0; begin < shape_.features; begin += tile) {
      const std::uint32_t first = key + static_cast<std::uint32_t>(begin) * kGolden;
      write_tile(first, std::span(latent).first(std::min(tile, shape_.features - begin)), out + begin, sums);
    }
    for (std::size_t z = tile; z-- > latents;) sums[z - latents] += sums[z];
    const auto features_of_one = static_cast<std::int32_t>(shape_.features / latents);
    Latents seen{};
    for (std::size_t z = 0; z < latents; ++z) seen[z] = sums[z] / (features_of_one * loading_);
    return seen;
  }

  // Features from one on whose noise comes from `first`; adds them to sums.
  void write_tile(std::uint32_t first, std::span<const std::int32_t> latent, float* out,
                  std::array<std::int32_t, kTile>& sums) const {
    constexpr float kScale = 1.0F / (static_cast<float>(kOne) * kByteSumDeviation);
    const std::int32_t noise = noise_;
    for (std::size_t z = 0; z < latent.size(); ++z) {
      std::int32_t value = latent[z];
      if (noise != 0) value += noise * to_value(mix(first + static_cast<std::uint32_t>(z) * kGolden));
      sums[z] += value;
      out[z] = static_cast<float>(value) * kScale;
    }
  }

  const SyntheticShape shape_;
  const std::uint64_t seed_;
  const std::uint64_t stream_;
  const std::size_t rows_;
  const std::int32_t loading_;
  const std::int32_t noise_;
  const std::uint32_t noise_labels_;
  PlantedNetwork network_;
};

}  // namespace

std::unique_ptr<Samples> make_synthetic_samples(const SyntheticShape& shape, std::uint64_t seed,
                                                std::uint64_t stream, std::size_t rows) {
  return std::make_unique<SyntheticSamples>(shape, seed, stream, rows);
}

}  // namespace gradfs::trainer
