// Both kinds of acceptance.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels_under_test.h"

namespace medusa {
namespace {

using Ints = std::vector<int32_t>;

struct Accepted {
  Ints path, count, next_root;
};

struct AcceptCase {
  int num_sequences = 1, max_path = 4;
  Ints tokens, targets, parents, num_nodes, first_rows;

  AcceptParams params(Accepted& out) const {
    out.path.assign(num_sequences * max_path, -7);
    out.count.assign(num_sequences, -7);
    out.next_root.assign(num_sequences, -7);
    AcceptParams p;
    p.num_sequences = num_sequences;
    p.max_nodes = static_cast<int32_t>(tokens.size()) / num_sequences;
    p.max_path = max_path;
    p.first_rows = first_rows.empty() ? nullptr : first_rows.data();
    p.tokens = tokens.data();
    p.targets = targets.data();
    p.parents = parents.data();
    p.num_nodes = num_nodes.data();
    p.path = out.path.data();
    p.count = out.count.data();
    p.next_root = out.next_root.data();
    return p;
  }

  Accepted run() const {
    Accepted out;
    cpu::CpuContext context(1);
    kernels_under_test().accept(context, params(out));
    return out;
  }
};

// 0 -> 1, 2, 3; 1 -> 4; 2 -> 5, 6; 5 -> 7.
const Ints kParents = {-1, 0, 0, 0, 1, 2, 2, 5};
const Ints kTokens = {10, 11, 12, 13, 14, 15, 16, 17};

TEST(Accept, FollowsTheTargets) {
  AcceptCase c{1, 4, kTokens, {12, 0, 15, 0, 0, 17, 0, 99}, kParents, {8}, {}};
  Accepted out = c.run();
  EXPECT_EQ(out.path, (Ints{0, 2, 5, 7}));
  EXPECT_EQ(out.count, Ints{4});
  EXPECT_EQ(out.next_root, Ints{99});

  c.targets[2] = 17;  // a token of the tree, but no child of node 2
  out = c.run();
  EXPECT_EQ(out.path, (Ints{0, 2, -1, -1}));
  EXPECT_EQ(out.count, Ints{2});
  EXPECT_EQ(out.next_root, Ints{17});

  c.targets[0] = 14;
  out = c.run();
  EXPECT_EQ(out.path, (Ints{0, -1, -1, -1}));
  EXPECT_EQ(out.count, Ints{1});
  EXPECT_EQ(out.next_root, Ints{14});
}

TEST(Accept, IgnoresWhatIsBehindTheNodes) {
  AcceptCase c{1, 4, kTokens, {12, 0, 15, 0, 0, 17, 0, 99}, kParents, {5}, {}};
  EXPECT_EQ(c.run().path, (Ints{0, 2, -1, -1}));
  // Padding looks like a root and is never reached, whatever its token.
  c.num_nodes = {8};
  c.parents[5] = c.parents[7] = -1;
  EXPECT_EQ(c.run().path, (Ints{0, 2, -1, -1}));
  c.num_nodes = {0};
  EXPECT_EQ(c.run().count, Ints{0});
}

TEST(Accept, SequencesAreIndependentPaddedOrPacked) {
  AcceptCase padded{
      2,      3, {1, 2, 3, 0, 5, 6, 0, 0}, {3, 0, 9, 0, 6, 7, 0, 0}, {-1, 0, 0, -1, -1, 0, -1, -1},
      {3, 2}, {}};
  Accepted out = padded.run();
  EXPECT_EQ(out.path, (Ints{0, 2, -1, 0, 1, -1}));
  EXPECT_EQ(out.count, (Ints{2, 2}));
  EXPECT_EQ(out.next_root, (Ints{9, 7}));

  AcceptCase packed{2,      3,     {1, 2, 3, 5, 6, 0}, {3, 0, 9, 6, 7, 0}, {-1, 0, 0, -1, 0, 0},
                    {3, 2}, {0, 3}};
  out = packed.run();
  EXPECT_EQ(out.path, (Ints{0, 2, -1, 0, 1, -1}));
  EXPECT_EQ(out.next_root, (Ints{9, 7}));
}

/// Logits [N, V] from probabilities.
std::vector<float> logits_of(const std::vector<std::vector<float>>& probabilities) {
  std::vector<float> logits;
  for (const auto& row : probabilities) {
    for (float p : row) logits.push_back(std::log(p) + 3.0f);
  }
  return logits;
}

Accepted accept_typical(const AcceptCase& c, const std::vector<float>& logits, int64_t width,
                        float epsilon, float delta, float temperature = 1) {
  Accepted out;
  const std::vector<uint64_t> seeds(c.num_sequences, 5);
  const Ints lengths(c.num_sequences, 30);
  AcceptTypicalParams p;
  p.rules.shared.typical = true;
  p.accept = c.params(out);
  p.width = width;
  p.logits = logits.data();
  p.seeds = seeds.data();
  p.lengths = lengths.data();
  p.rules.shared.temperature = temperature;
  p.rules.shared.epsilon = epsilon;
  p.rules.shared.delta = delta;
  cpu::CpuContext context(2);
  kernels_under_test().accept_typical(context, p);
  return out;
}

// 0 -> 1, 2; 1 -> 3; 2 -> 4.
AcceptCase typical_case() { return {1, 3, {0, 1, 2, 3, 0}, {}, {-1, 0, 0, 1, 2}, {5}, {}}; }

TEST(AcceptTypical, TakesTheLongestTypicalPath) {
  const std::vector<float> even = {0.25f, 0.25f, 0.25f, 0.25f};
  std::vector<std::vector<float>> p = {
      {0.1f, 0.6f, 0.2f, 0.1f}, {0.9f, 0.04f, 0.04f, 0.02f}, even, even, even};
  // Node 1 is more probable, but its child is not typical; node 2 leads further.
  Accepted out = accept_typical(typical_case(), logits_of(p), 4, 0.09f, 0.3f);
  EXPECT_EQ(out.path, (Ints{0, 2, 4}));
  EXPECT_EQ(out.count, Ints{3});
  // Of two paths of one length the more probable one.
  p[1] = even;
  out = accept_typical(typical_case(), logits_of(p), 4, 0.09f, 0.3f);
  EXPECT_EQ(out.path, (Ints{0, 1, 3}));
}

TEST(AcceptTypical, BoundIsTheSmallerOfEpsilonAndDelta) {
  // Entropy of {0.4, 0.3, 0.2, 0.1} is 1.2799: e^-H = 0.2781.
  const std::vector<float> row = {0.4f, 0.3f, 0.2f, 0.1f};
  const std::vector<std::vector<float>> p(5, row);
  const std::vector<float> logits = logits_of(p);
  // Tokens 1 (0.3) and 2 (0.2) below the root, 3 (0.1) below node 1, 0 (0.4) below node 2.
  EXPECT_EQ(accept_typical(typical_case(), logits, 4, 0.25f, 1.0f).path, (Ints{0, 1, -1}));
  EXPECT_EQ(accept_typical(typical_case(), logits, 4, 0.19f, 1.0f).path, (Ints{0, 2, 4}));
  EXPECT_EQ(accept_typical(typical_case(), logits, 4, 1.0f, 0.73f).path, (Ints{0, 1, -1}));
  EXPECT_EQ(accept_typical(typical_case(), logits, 4, 1.0f, 0.71f).path, (Ints{0, 2, 4}));
  EXPECT_EQ(accept_typical(typical_case(), logits, 4, 0.5f, 2.0f).path, (Ints{0, -1, -1}));
}

TEST(AcceptTypical, NextRootIsDrawnAtTheEndOfThePath) {
  const std::vector<std::vector<float>> p = {{0.1f, 0.6f, 0.2f, 0.1f},
                                             {0.4f, 0.3f, 0.2f, 0.1f},
                                             {0.4f, 0.3f, 0.2f, 0.1f},
                                             {0.1f, 0.2f, 0.3f, 0.4f},
                                             {0.4f, 0.3f, 0.2f, 0.1f}};
  const std::vector<float> logits = logits_of(p);
  const Accepted out = accept_typical(typical_case(), logits, 4, 0.05f, 0.3f, 0.8f);
  ASSERT_EQ(out.count, Ints{3});
  const uint64_t seed = 5;
  const int32_t position = 33;
  int32_t expected = -1;
  SampleParams sample;
  sample.num_rows = 1;
  sample.width = 4;
  sample.logits = logits.data() + 4 * out.path[2];
  sample.seeds = &seed;
  sample.positions = &position;
  sample.rules.shared.temperature = 0.8f;
  sample.out = &expected;
  cpu::CpuContext context(1);
  kernels_under_test().sample(context, sample);
  EXPECT_EQ(out.next_root, Ints{expected});
}

}  // namespace
}  // namespace medusa
