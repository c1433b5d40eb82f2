// Sampling against a plain float64 walk over all tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/noise.h"
#include "tests/kernels_under_test.h"

namespace medusa {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Rule {
  float temperature = 1;
  float top_p = 1;
  int32_t top_k = 0;
};

std::vector<int32_t> sample(const std::vector<float>& logits, int64_t width, const Rule& rule,
                            uint64_t seed, int32_t first_position, int num_threads = 2) {
  const auto rows = static_cast<int32_t>(logits.size() / width);
  std::vector<uint64_t> seeds(rows, seed);
  std::vector<int32_t> positions(rows), out(rows, -1);
  std::iota(positions.begin(), positions.end(), first_position);
  SampleParams p;
  p.num_rows = rows;
  p.width = width;
  p.logits = logits.data();
  p.row_stride = width;
  p.seeds = seeds.data();
  p.positions = positions.data();
  p.rules.shared.temperature = rule.temperature;
  p.rules.shared.top_p = rule.top_p;
  p.rules.shared.top_k = rule.top_k;
  p.out = out.data();
  cpu::CpuContext context(num_threads);
  kernels_under_test().sample(context, p);
  return out;
}

/// The kept threshold and the winner, written as the definition reads.
int32_t reference(const float* logits, int64_t width, const Rule& rule, uint64_t seed,
                  int32_t position) {
  std::vector<double> ordered;
  for (int64_t i = 0; i < width; ++i) {
    if (!std::isnan(logits[i])) ordered.push_back(logits[i]);
  }
  std::sort(ordered.begin(), ordered.end(), std::greater<>());
  double threshold = ordered.back();
  if (rule.top_k > 0 && rule.top_k < width) {
    threshold = ordered[std::min<size_t>(rule.top_k, ordered.size()) - 1];
  }
  if (rule.top_p < 1) {
    double total = 0, mass = 0;
    for (double x : ordered) {
      if (x >= threshold) total += std::exp((x - ordered[0]) / rule.temperature);
    }
    for (double x : ordered) {
      mass += std::exp((x - ordered[0]) / rule.temperature);
      if (mass >= rule.top_p * total) {
        threshold = std::max(threshold, x);
        break;
      }
    }
  }
  int64_t winner = 0;
  float best = -kInfinity;
  for (int64_t i = 0; i < width; ++i) {
    if (!(logits[i] >= threshold)) continue;
    const uint32_t bits = noise_bits(noise_key(seed, position), static_cast<int32_t>(i));
    const float value = logits[i] / rule.temperature + gumbel(bits);
    if (value > best) {
      best = value;
      winner = i;
    }
  }
  return static_cast<int32_t>(winner);
}

std::vector<float> random_logits(int64_t count, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(count);
  for (float& x : logits) x = normal(random);
  return logits;
}

TEST(Sample, MatchesTheDefinition) {
  const Rule rules[] = {{1, 1, 0},     {0.3f, 1, 0},     {2, 1, 0},         {1, 0.9f, 0},
                        {1, 0.01f, 0}, {0.7f, 0.95f, 0}, {1.3f, 0.999f, 0}, {1, 1, 1},
                        {1, 1, 40},    {1.5f, 1, 500},   {1, 0.9f, 50},     {0.8f, 0.5f, 1000}};
  for (int64_t width : {1, 2, 100, 255, 256, 257, 5000}) {
    for (float spread : {0.0f, 0.2f, 3.0f, 20.0f}) {
      const std::vector<float> logits = random_logits(6 * width, spread, 5);
      for (const Rule& rule : rules) {
        const std::vector<int32_t> out = sample(logits, width, rule, 11, 100);
        for (int row = 0; row < 6; ++row) {
          ASSERT_EQ(out[row], reference(logits.data() + row * width, width, rule, 11, 100 + row))
              << "V " << width << ", spread " << spread << ", T " << rule.temperature << ", top_p "
              << rule.top_p << ", top_k " << rule.top_k << ", row " << row;
        }
      }
    }
  }
}

TEST(Sample, DependsOnSeedPositionAndLogitsAlone) {
  constexpr int64_t kWidth = 1000;
  const std::vector<float> row = random_logits(kWidth, 1.0f, 2);
  std::vector<float> rows;
  for (int i = 0; i < 8; ++i) rows.insert(rows.end(), row.begin(), row.end());
  const std::vector<int32_t> out = sample(rows, kWidth, {}, 7, 50, 1);
  EXPECT_EQ(sample(rows, kWidth, {}, 7, 50, 3), out);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(sample(row, kWidth, {}, 7, 50 + i)[0], out[i]);
  EXPECT_NE(sample(rows, kWidth, {}, 8, 50), out);
  EXPECT_NE(sample(rows, kWidth, {}, 7, 51), out);
}

TEST(Sample, FrequenciesFollowTheSoftmax) {
  const std::vector<float> row = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f};
  constexpr int kDraws = 40000;
  std::vector<float> rows;
  for (int i = 0; i < kDraws; ++i) rows.insert(rows.end(), row.begin(), row.end());
  std::vector<int> counts(row.size());
  for (int32_t token : sample(rows, 5, {0.8f, 1, 0}, 123, 0)) ++counts[token];
  double total = 0, chi_square = 0;
  for (float x : row) total += std::exp(x / 0.8);
  for (size_t i = 0; i < row.size(); ++i) {
    const double expected = kDraws * std::exp(row[i] / 0.8) / total;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 18.5);  // 4 degrees of freedom, p = 0.001
}

TEST(Sample, LogitsThatAreNoNumbersAreNeverDrawn) {
  std::vector<float> row(600, std::nanf(""));
  row[3] = -kInfinity;
  EXPECT_EQ(sample(row, 600, {}, 1, 0)[0], -1);
  row[400] = 0.0f;
  row[500] = -1.0f;
  for (int position = 0; position < 50; ++position) {
    const int32_t token = sample(row, 600, {1, 0.999f, 3}, 1, position)[0];
    EXPECT_TRUE(token == 400 || token == 500) << token;
  }
  row[77] = kInfinity;
  EXPECT_EQ(sample(row, 600, {}, 1, 0)[0], -1);
  EXPECT_EQ(sample(std::vector<float>(9, std::nanf("")), 9, {}, 1, 0)[0], -1);
}

TEST(Sample, ZeroTemperatureIsTheArgmax) {
  EXPECT_EQ(sample({1.0f, 3.0f, 3.0f, 2.0f}, 4, {0.0f, 1, 0}, 1, 0)[0], 1);
}

}  // namespace
}  // namespace medusa
