// Rows and sequences of one launch with rules of their own: each gets what it gets alone.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "cuda/runtime/kernels.h"
#include "cuda/runtime/workspace.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"

namespace medusa::cuda::testing {
namespace {

constexpr int kWidth = 9000;  // more than one block of a row's reduction
const std::vector<SamplingRule> kRules = {{1.0f},
                                          {0},
                                          {0.7f, 0.8f},
                                          {1.3f, 1, 40},
                                          {0, 0.1f, 5},
                                          {0.9f, 0.95f, 30},
                                          {1, 1, 0, true},
                                          {0.6f, 0.9f, 0, true, 0.3f, 0.9f},
                                          {0.8f, 1, 7, true}};

std::vector<float> random_logits(size_t rows) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(rows * kWidth);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

TEST(SamplingRules, RowsAreDrawnByTheirOwn) {
  const size_t num_rows = kRules.size();
  const DeviceVector<float> logits(random_logits(num_rows));
  const DeviceVector<uint64_t> seeds(std::vector<uint64_t>(num_rows, 5));
  const DeviceVector<int32_t> positions(std::vector<int32_t>(num_rows, 12));
  const DeviceVector<SamplingRule> rules(kRules);
  SampleParams params;
  params.num_rows = static_cast<int32_t>(num_rows);
  params.width = params.row_stride = kWidth;
  params.logits = logits.data();
  params.seeds = seeds.data();
  params.positions = positions.data();
  TestContext context(workspace_bytes(params));
  under_schedules([&] {
    const DeviceVector<int32_t> together(num_rows), alone(num_rows);
    params.num_rows = static_cast<int32_t>(num_rows);
    params.logits = logits.data();
    params.rules.own = rules.data();
    params.out = together.data();
    ASSERT_EQ(cudaSuccess, sample(context, params));
    params.num_rows = 1;
    params.rules.own = nullptr;
    for (size_t row = 0; row < num_rows; ++row) {
      params.logits = logits.data() + row * kWidth;
      params.rules.shared = kRules[row];
      params.out = alone.data() + row;
      ASSERT_EQ(cudaSuccess, sample(context, params));
    }
    EXPECT_EQ(alone.host(), together.host());
  });
}

// Sequences that are not typical keep the path that another kernel found.
TEST(SamplingRules, SequencesAreAcceptedByTheirOwn) {
  constexpr int kNodes = 3;  // 0 -> 1, 2
  const size_t batch = kRules.size();
  std::vector<int32_t> tokens, parents;
  for (size_t b = 0; b < batch; ++b) {
    for (int32_t node : {0, 1, 2}) {
      tokens.push_back(node);
      parents.push_back(node == 0 ? -1 : 0);
    }
  }
  std::vector<float> logits = random_logits(batch * kNodes);
  for (size_t row = 0; row < batch * kNodes; ++row) logits[row * kWidth + 2] = 12;
  const DeviceVector<float> device_logits(logits);
  const DeviceVector<int32_t> device_tokens(tokens), device_parents(parents);
  const DeviceVector<uint64_t> seeds(std::vector<uint64_t>(batch, 5));
  const DeviceVector<int32_t> lengths(std::vector<int32_t>(batch, 7));
  const DeviceVector<SamplingRule> rules(kRules);
  AcceptTypicalParams params;
  params.accept.max_nodes = params.accept.max_path = kNodes;
  params.width = kWidth;
  params.seeds = seeds.data();
  params.lengths = lengths.data();
  TestContext context(1 << 20);
  const auto run = [&](size_t first, size_t count, DeviceVector<int32_t>& results) {
    params.accept.num_sequences = static_cast<int32_t>(count);
    params.accept.tokens = device_tokens.data() + first * kNodes;
    params.accept.parents = device_parents.data() + first * kNodes;
    params.logits = device_logits.data() + first * kNodes * kWidth;
    params.accept.path = results.data() + first * kNodes;
    params.accept.count = results.data() + batch * kNodes + first;
    params.accept.next_root = results.data() + batch * (kNodes + 1) + first;
    ASSERT_EQ(cudaSuccess, accept_typical(context, params));
  };
  under_schedules([&] {
    const std::vector<int32_t> unset(batch * (kNodes + 2), -7);
    DeviceVector<int32_t> together(unset), alone(unset);
    params.rules.own = rules.data();
    run(0, batch, together);
    params.rules.own = nullptr;
    for (size_t b = 0; b < batch; ++b) {
      params.rules.shared = kRules[b];
      run(b, 1, alone);
    }
    EXPECT_EQ(alone.host(), together.host());
    const std::vector<int32_t> results = together.host();
    for (size_t b = 0; b < batch; ++b) {
      EXPECT_EQ(kRules[b].typical ? 2 : -7, results[batch * kNodes + b]) << b;
      EXPECT_EQ(kRules[b].typical, results[batch * (kNodes + 1) + b] >= 0) << b;
    }
  });
}

}  // namespace
}  // namespace medusa::cuda::testing
