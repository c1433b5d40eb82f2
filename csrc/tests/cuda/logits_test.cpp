// Arg-max, sampling and candidates against plain loops in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "core/noise.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/workspace.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"

namespace medusa::cuda::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Rows of logits with a stride that leaves most of them at odd addresses. Coarse: many ties.
struct Logits {
  Logits(DType type, int rows, int v, unsigned seed, bool coarse = false)
      : dtype(type), num_rows(rows), width(v), stride(v + 3) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 4.0f);
    values.resize(static_cast<size_t>(rows) * stride, kNaN);
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < v; ++i) {
        const float x = normal(random);
        at(r, i) = coarse ? std::round(x / 4) : x;
      }
    }
    values = rounded(type, values);
  }
  float& at(int row, int id) { return values[static_cast<size_t>(row) * stride + id]; }
  float at(int row, int id) const { return values[static_cast<size_t>(row) * stride + id]; }

  DType dtype;
  int num_rows, width, stride;
  std::vector<float> values;
};

const std::vector<DType> kDTypes = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

std::vector<int> widths() {
  if (is_sanitized()) return {1, 7, 2050};
  return {1, 7, 2050, 8192, 8193, 20001};
}

int argmax_of(const Logits& logits, int row) {
  int best = -1;
  float largest = -kInfinity;
  for (int i = 0; i < logits.width; ++i) {
    if (!(logits.at(row, i) > largest)) continue;
    largest = logits.at(row, i);
    best = i;
  }
  return largest == kInfinity ? -1 : best;
}

TEST(Argmax, LowestIdOfTheLargest) {
  for (const DType dtype : kDTypes) {
    for (const int width : widths()) {
      Logits logits(dtype, 5, width, 1, /*coarse=*/true);
      std::fill_n(&logits.at(1, 0), width, -kInfinity);  // nothing but -inf
      std::fill_n(&logits.at(2, 0), width, kNaN);        // nothing but NaN
      logits.at(4, width - 1) = kInfinity;
      if (width > 2) {
        logits.at(0, width / 2) = kNaN;
        logits.at(3, 1) = -0.0f;
        logits.at(3, 2) = 0.0f;
        for (int i = 0; i < width; ++i) logits.at(3, i) = std::min(logits.at(3, i), -0.0f);
      }
      const DeviceVector<unsigned char> device(encode(dtype, logits.values));
      ArgmaxParams params;
      params.num_rows = logits.num_rows;
      params.width = width;
      params.dtype = dtype;
      params.logits = device.data();
      params.row_stride = logits.stride;
      TestContext context(workspace_bytes(params));
      under_schedules([&] {
        const DeviceVector<int32_t> out(static_cast<size_t>(logits.num_rows));
        params.out = out.data();
        ASSERT_EQ(cudaSuccess, argmax(context, params));
        const std::vector<int32_t> ids = out.host();
        for (int r = 0; r < logits.num_rows; ++r) {
          EXPECT_EQ(argmax_of(logits, r), ids[r])
              << dtype_name(dtype) << " V " << width << " row " << r;
        }
      });
    }
  }
  ArgmaxParams params;
  params.num_rows = 1;
  params.width = 100;
  TestContext context(0);
  EXPECT_EQ(cudaErrorMemoryAllocation, argmax(context, params));
}

struct Rule {
  float temperature, top_p;
  int top_k;
};

/// Ids that top-k, then top-p keep; ties with the last stay. `slack` moves the top-p goal.
std::vector<bool> kept_ids(const Logits& logits, int row, const Rule& rule, double slack) {
  std::vector<float> sorted;
  for (int i = 0; i < logits.width; ++i) sorted.push_back(logits.at(row, i));
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  float threshold = -kInfinity;
  if (rule.top_k > 0 && rule.top_k < logits.width) threshold = sorted[rule.top_k - 1];
  if (rule.top_p < 1) {
    std::vector<double> masses;
    for (const float x : sorted) {
      masses.push_back(x < threshold ? 0 : std::exp((double{x} - sorted[0]) / rule.temperature));
    }
    const double goal = std::accumulate(masses.begin(), masses.end(), 0.0) * (rule.top_p + slack);
    double mass = 0;
    for (size_t i = 0; i < sorted.size() && sorted[i] >= threshold; ++i) {
      mass += masses[i];
      if (mass < goal) continue;
      threshold = sorted[i];
      break;
    }
  }
  std::vector<bool> kept;
  for (int i = 0; i < logits.width; ++i) kept.push_back(logits.at(row, i) >= threshold);
  return kept;
}

double noisy_value(const Logits& logits, int row, int id, const Rule& rule, uint64_t seed,
                   int position) {
  return double{logits.at(row, id)} / rule.temperature +
         gumbel(noise_bits(noise_key(seed, position), id));
}

TEST(Sample, IsTheNoisyArgmaxOfWhatIsKept) {
  const std::vector<Rule> rules = {{1.0f, 1.0f, 0},   {0.7f, 1.0f, 40}, {1.3f, 0.8f, 0},
                                   {1.0f, 0.5f, 500}, {2.0f, 0.99f, 1}, {0.0f, 0.5f, 3}};
  for (const DType dtype : kDTypes) {
    for (const int width : widths()) {
      for (size_t r = 0; r < rules.size(); ++r) {
        const Rule& rule = rules[r];
        const Logits logits(dtype, 5, width, static_cast<unsigned>(r), r % 2 == 1);
        const DeviceVector<unsigned char> device(encode(dtype, logits.values));
        const DeviceVector<uint64_t> seeds({1, 2, 3, 4, 5});
        const DeviceVector<int32_t> positions({0, 7, 7, 1000, 12});
        SampleParams params;
        params.num_rows = 5;
        params.width = width;
        params.dtype = dtype;
        params.logits = device.data();
        params.row_stride = logits.stride;
        params.seeds = seeds.data();
        params.positions = positions.data();
        params.rules.shared.temperature = rule.temperature;
        params.rules.shared.top_p = rule.top_p;
        params.rules.shared.top_k = rule.top_k;
        TestContext context(workspace_bytes(params));
        under_schedules([&] {
          const DeviceVector<int32_t> out(5);
          params.out = out.data();
          ASSERT_EQ(cudaSuccess, sample(context, params));
          const std::vector<int32_t> ids = out.host();
          for (int row = 0; row < 5; ++row) {
            SCOPED_TRACE(::testing::Message()
                         << dtype_name(dtype) << " V " << width << " rule " << r << " row " << row);
            ASSERT_GE(ids[row], 0);
            ASSERT_LT(ids[row], width);
            if (rule.temperature == 0) {
              EXPECT_EQ(argmax_of(logits, row), ids[row]);
              continue;
            }
            // Masses are rounded: an id at the very edge of top-p may go either way.
            EXPECT_TRUE(kept_ids(logits, row, rule, 1e-6)[ids[row]]);
            const std::vector<bool> kept = kept_ids(logits, row, rule, -1e-6);
            const auto value = [&](int id) {
              return noisy_value(logits, row, id, rule, seeds.host()[row], positions.host()[row]);
            };
            double best = -kInfinity;
            for (int id = 0; id < width; ++id) {
              if (kept[id]) best = std::max(best, value(id));
            }
            EXPECT_GE(value(ids[row]), best - 1e-4);
          }
        });
      }
    }
  }
}

struct CandidatesShape {
  DType dtype;
  int sequences, heads, width, top_k, num_nodes;
  bool mapped, log_probs;
};

void check_candidates(const CandidatesShape& s, unsigned seed) {
  SCOPED_TRACE(::testing::Message()
               << dtype_name(s.dtype) << " B " << s.sequences << " K " << s.heads << " V "
               << s.width << " k " << s.top_k << " N " << s.num_nodes);
  const int rows = s.sequences * s.heads;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> values(static_cast<size_t>(rows) * s.width);
  for (float& value : values) value = seed % 2 == 0 ? std::round(normal(random)) : normal(random);
  if (s.width > 10) values[5] = kNaN;
  values = rounded(s.dtype, values);
  std::vector<int32_t> map(s.width), roots, depths{0}, ranks{0};
  for (int i = 0; i < s.width; ++i) map[i] = 2 * i + 1;
  for (int b = 0; b < s.sequences; ++b) roots.push_back(900 + b);
  for (int n = 1; n < s.num_nodes; ++n) {
    depths.push_back(1 + static_cast<int>(random() % s.heads));
    ranks.push_back(static_cast<int>(random() % s.top_k));
  }

  const DeviceVector<unsigned char> logits(encode(s.dtype, values));
  const DeviceVector<int32_t> device_map(map), device_roots(roots), device_depths(depths),
      device_ranks(ranks);
  CandidatesParams params;
  params.num_sequences = s.sequences;
  params.num_heads = s.heads;
  params.width = s.width;
  params.top_k = s.top_k;
  params.num_nodes = s.num_nodes;
  params.dtype = s.dtype;
  params.logits = logits.data();
  params.token_map = s.mapped ? device_map.data() : nullptr;
  params.roots = device_roots.data();
  params.depths = device_depths.data();
  params.ranks = device_ranks.data();
  TestContext context(workspace_bytes(params));
  under_schedules([&] {
    const DeviceVector<int32_t> top_ids(static_cast<size_t>(rows) * s.top_k);
    const DeviceVector<float> log_probs(top_ids.size());
    const DeviceVector<int32_t> tokens(static_cast<size_t>(s.sequences) * s.num_nodes);
    params.top_ids = top_ids.data();
    params.top_log_probs = s.log_probs ? log_probs.data() : nullptr;
    params.tokens = tokens.data();
    ASSERT_EQ(cudaSuccess, candidates(context, params));
    const std::vector<int32_t> ids = top_ids.host(), nodes = tokens.host();
    const std::vector<float> found = log_probs.host();
    for (int row = 0; row < rows; ++row) {
      const float* x = &values[static_cast<size_t>(row) * s.width];
      std::vector<int> order;
      double max = -kInfinity, sum = 0;
      for (int i = 0; i < s.width; ++i) {
        order.push_back(i);
        if (!std::isnan(x[i])) max = std::max<double>(max, x[i]);
      }
      for (int i = 0; i < s.width; ++i) sum += std::isnan(x[i]) ? 0 : std::exp(x[i] - max);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return std::isnan(x[b]) ? !std::isnan(x[a]) : x[a] > x[b];
      });
      for (int i = 0; i < s.top_k; ++i) {
        const size_t at = static_cast<size_t>(row) * s.top_k + i;
        const int id = i < s.width ? order[i] : -1;
        ASSERT_EQ(id >= 0 && s.mapped ? map[id] : id, ids[at]) << "row " << row << " rank " << i;
        if (s.log_probs && id >= 0 && !std::isnan(x[id])) {
          EXPECT_NEAR(x[id] - max - std::log(sum), found[at], 1e-4);
        }
      }
    }
    for (int b = 0; b < s.sequences; ++b) {
      for (int n = 0; n < s.num_nodes; ++n) {
        const int expected =
            n == 0 ? roots[b] : ids[(b * s.heads + depths[n] - 1) * s.top_k + ranks[n]];
        EXPECT_EQ(expected, nodes[b * s.num_nodes + n]) << "sequence " << b << " node " << n;
      }
    }
  });
}

TEST(Candidates, AreTheBestOfEveryHead) {
  unsigned seed = 0;
  for (const DType dtype : kDTypes) {
    check_candidates({dtype, 1, 1, 1, 1, 1, false, true}, ++seed);
    check_candidates({dtype, 2, 4, 4096, 10, 64, false, true}, ++seed);
    check_candidates({dtype, 1, 5, 4097, 32, 200, true, false}, ++seed);
    check_candidates({dtype, 3, 9, 300, 5, 17, true, true}, ++seed);
    check_candidates({dtype, 1, 2, 20, 32, 2, false, true}, ++seed);  // fewer ids than k
    if (!is_sanitized()) check_candidates({dtype, 1, 3, 40000, 8, 16, true, true}, ++seed);
  }
  CandidatesParams params;
  params.num_sequences = 1;
  params.top_k = 33;
  TestContext context(1 << 20);
  EXPECT_EQ(cudaErrorInvalidValue, candidates(context, params));
}

}  // namespace
}  // namespace medusa::cuda::testing
