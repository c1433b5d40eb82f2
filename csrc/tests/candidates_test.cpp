#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/kernels_under_test.h"

namespace medusa {
namespace {

using Ints = std::vector<int32_t>;

struct CandidatesCase {
  int num_sequences = 2, num_heads = 3, top_k = 5;
  int64_t width = 1000;
  std::vector<float> logits;
  Ints token_map, roots = {7, 8}, depths = {0, 1, 1, 2, 3}, ranks = {0, 0, 3, 1, 4};
  Ints top_ids, tokens;
  std::vector<float> log_probs;

  void run(int num_threads = 2) {
    top_ids.assign(num_sequences * num_heads * top_k, -7);
    log_probs.assign(top_ids.size(), -7);
    tokens.assign(num_sequences * depths.size(), -7);
    CandidatesParams p;
    p.num_sequences = num_sequences;
    p.num_heads = num_heads;
    p.width = width;
    p.top_k = top_k;
    p.num_nodes = static_cast<int32_t>(depths.size());
    p.logits = logits.data();
    p.token_map = token_map.empty() ? nullptr : token_map.data();
    p.roots = roots.data();
    p.depths = depths.data();
    p.ranks = ranks.data();
    p.top_ids = top_ids.data();
    p.top_log_probs = log_probs.data();
    p.tokens = tokens.data();
    cpu::CpuContext context(num_threads);
    kernels_under_test().candidates(context, p);
  }

  /// Ids of one head by (logit, lowest id).
  Ints ordered(int head) const {
    Ints ids(width);
    std::iota(ids.begin(), ids.end(), 0);
    const float* x = logits.data() + head * width;
    std::stable_sort(ids.begin(), ids.end(), [x](int32_t a, int32_t b) { return x[a] > x[b]; });
    return ids;
  }
};

TEST(Candidates, TopIdsLogProbsAndTokens) {
  std::mt19937 random(9);
  for (int64_t width : {32, 33, 255, 256, 257, 1000, 5000}) {
    for (int top_k : {1, 2, 5, 10, 32}) {
      CandidatesCase c;
      c.width = width;
      c.top_k = top_k;
      c.logits.resize(6 * width);
      // Few distinct values: ties everywhere.
      for (float& x : c.logits) x = static_cast<float>(random() % 12) * 0.5f;
      for (int32_t& rank : c.ranks) rank = std::min(rank, top_k - 1);
      c.run();
      for (int head = 0; head < 6; ++head) {
        const Ints ids = c.ordered(head);
        double sum = 0;
        for (int64_t i = 0; i < width; ++i) sum += std::exp(c.logits[head * width + i]);
        for (int i = 0; i < top_k; ++i) {
          ASSERT_EQ(c.top_ids[head * top_k + i], ids[i]) << "V " << width << ", k " << top_k;
          ASSERT_NEAR(c.log_probs[head * top_k + i],
                      c.logits[head * width + ids[i]] - std::log(sum), 1e-5);
        }
      }
      for (int b = 0; b < 2; ++b) {
        EXPECT_EQ(c.tokens[b * 5], c.roots[b]);
        for (int node = 1; node < 5; ++node) {
          const int head = b * 3 + c.depths[node] - 1;
          EXPECT_EQ(c.tokens[b * 5 + node], c.top_ids[head * top_k + c.ranks[node]]);
        }
      }
    }
  }
}

TEST(Candidates, DraftIdsAreMapped) {
  CandidatesCase c;
  c.width = 40;
  std::mt19937 random(2);
  c.logits.resize(6 * 40);
  for (float& x : c.logits) x = static_cast<float>(random() % 1000);
  c.run();
  const Ints draft_ids = c.top_ids;
  const Ints draft_tokens = c.tokens;
  for (int i = 0; i < 40; ++i) c.token_map.push_back(1000 + 3 * i);
  c.run(1);
  for (size_t i = 0; i < draft_ids.size(); ++i) {
    EXPECT_EQ(c.top_ids[i], 1000 + 3 * draft_ids[i]);
  }
  EXPECT_EQ(c.tokens[0], draft_tokens[0]);
  EXPECT_EQ(c.tokens[1], 1000 + 3 * draft_tokens[1]);
}

TEST(Candidates, NumbersComeBeforeNan) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  CandidatesCase c;
  c.num_sequences = c.num_heads = 1;
  c.depths = c.ranks = {0};
  c.width = 6;
  c.logits = {kNan, -kInfinity, 1.0f, kNan, -kInfinity, 2.0f};
  c.run();
  EXPECT_EQ(c.top_ids, (Ints{5, 2, 1, 4, 0}));
  EXPECT_NEAR(c.log_probs[0], 2.0 - std::log(std::exp(2.0) + std::exp(1.0)), 1e-6);
}

}  // namespace
}  // namespace medusa
