// The pieces that let a step run on the device alone: merged drafts, and results through the ring.
#include "cuda/step.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "cuda/step_ring.h"
#include "tests/cuda/attention_case.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"

namespace medusa::cuda::testing {
namespace {

struct Drafts {
  std::vector<int32_t> tokens, parents;
};

struct MergedTree {
  std::vector<int32_t> tokens, parents;
};

/// The same, by a map from (parent, token) to the child.
MergedTree merge(const std::vector<int32_t>& base_tokens, const std::vector<int32_t>& base_parents,
                 const Drafts& drafts, int max_nodes, int max_path) {
  MergedTree tree = {base_tokens, base_parents};
  std::map<std::pair<int, int>, int> children;
  for (size_t j = 1; j < base_tokens.size(); ++j) {
    children.emplace(std::pair(base_parents[j], base_tokens[j]), static_cast<int>(j));
  }
  std::vector<int> nodes;
  for (size_t i = 0; i < drafts.tokens.size(); ++i) {
    const int parent = drafts.parents[i] < 0 ? 0 : nodes[drafts.parents[i]];
    int depth = 0;
    for (int j = parent; j > 0; j = tree.parents[j]) ++depth;
    const auto found = children.find({parent, drafts.tokens[i]});
    if (parent >= 0 && found != children.end()) {
      nodes.push_back(found->second);
    } else if (parent < 0 || static_cast<int>(tree.tokens.size()) == max_nodes ||
               depth + 2 > max_path) {
      nodes.push_back(-1);
    } else {
      nodes.push_back(static_cast<int>(tree.tokens.size()));
      children.emplace(std::pair(parent, drafts.tokens[i]), nodes.back());
      tree.tokens.push_back(drafts.tokens[i]);
      tree.parents.push_back(parent);
    }
  }
  return tree;
}

TEST(MergeDrafts, SharesEqualSiblings) {
  const int num_sequences = 3, num_base = 20, max_drafts = 40;
  for (unsigned seed = 1; seed <= 10; ++seed) {
    const int max_nodes = seed % 2 == 0 ? 30 : 70, max_path = seed % 3 == 0 ? 4 : 50;
    std::mt19937 random(seed);
    std::vector<int32_t> base_tokens, draft_tokens, draft_parents, num_drafts = {40, 0, 25};
    // Siblings of the heads' tree differ in their tokens.
    const std::vector<int32_t> base_parents = random_parents(TreeKind::kRandom, num_base, random);
    for (int b = 0; b < num_sequences; ++b) {
      for (int j = 0; j < num_base; ++j) base_tokens.push_back(100 + j);
      for (int j = 1; j < num_base; j += 2) base_tokens[b * num_base + j] = j % 8;
      const std::vector<int32_t> chains = random_parents(TreeKind::kDeep, max_drafts + 1, random);
      for (int i = 0; i < max_drafts; ++i) {
        draft_parents.push_back(chains[i + 1] - 1);
        draft_tokens.push_back(static_cast<int>(random() % 8));
      }
    }
    const DeviceVector<int32_t> parents(base_parents), tokens(base_tokens), drafts(draft_tokens),
        draft_parents_on_device(draft_parents), counts(num_drafts);
    under_schedules([&] {
      const DeviceVector<int32_t> out_tokens(static_cast<size_t>(num_sequences) * max_nodes);
      const DeviceVector<int32_t> out_parents(out_tokens.size()), num_nodes(3);
      MergeDraftsParams params;
      params.num_sequences = num_sequences;
      params.num_base_nodes = num_base;
      params.base_parents = parents.data();
      params.base_tokens = tokens.data();
      params.max_drafts = max_drafts;
      params.draft_tokens = drafts.data();
      params.draft_parents = draft_parents_on_device.data();
      params.num_drafts = counts.data();
      params.max_nodes = max_nodes;
      params.max_path = max_path;
      params.tokens = out_tokens.data();
      params.parents = out_parents.data();
      params.num_nodes = num_nodes.data();
      TestContext context;
      ASSERT_EQ(cudaSuccess, merge_drafts(context, params));
      const std::vector<int32_t> got_tokens = out_tokens.host(), got_parents = out_parents.host();
      for (int b = 0; b < num_sequences; ++b) {
        SCOPED_TRACE(::testing::Message() << "seed " << seed << " sequence " << b);
        Drafts own;
        for (int i = 0; i < num_drafts[b]; ++i) {
          own.tokens.push_back(draft_tokens[b * max_drafts + i]);
          own.parents.push_back(draft_parents[b * max_drafts + i]);
        }
        const auto first = base_tokens.begin() + b * num_base;
        MergedTree expected =
            merge({first, first + num_base}, base_parents, own, max_nodes, max_path);
        EXPECT_EQ(static_cast<int>(expected.tokens.size()), num_nodes.host()[b]);
        expected.tokens.resize(max_nodes, -1);
        expected.parents.resize(max_nodes, -1);
        const auto row = [&](const std::vector<int32_t>& all) {
          return std::vector<int32_t>(all.begin() + b * max_nodes,
                                      all.begin() + (b + 1) * max_nodes);
        };
        EXPECT_EQ(expected.tokens, row(got_tokens));
        EXPECT_EQ(expected.parents, row(got_parents));
      }
    });
  }
}

// Sequence 0 ends inside its path, 1 at the next root, 2 nowhere, 3 emits a path longer than a
// warp.
TEST(Publish, EndsAtEndTokensAndFillsTheRing) {
  const int num_sequences = 4, max_nodes = 50, max_path = 45;
  std::vector<int32_t> tokens, path;
  for (int b = 0; b < num_sequences; ++b) {
    for (int j = 0; j < max_nodes; ++j) tokens.push_back(1000 * b + j);
    for (int i = 0; i < max_path; ++i) path.push_back(i < 2 ? i : i + 3);
  }
  tokens[6] = 7;  // node 6 is path[3]
  const std::vector<int32_t> counts = {5, 3, 2, 45}, roots = {70, 9, 72, 73};
  const DeviceVector<int32_t> device_tokens(tokens), device_path(path), end_tokens({9, 7});

  under_schedules([&] {
    StepRing ring(2, num_sequences, max_path);
    const DeviceVector<int32_t> finished(std::vector<int32_t>(num_sequences, 0));
    const DeviceVector<uint64_t> step(std::vector<uint64_t>{0});
    TestContext context;
    for (uint64_t i = 0; i < 3; ++i) {
      SCOPED_TRACE(::testing::Message() << "step " << i);
      const DeviceVector<int32_t> count(counts), next_root(roots);
      PublishParams params;
      params.num_sequences = num_sequences;
      params.max_nodes = max_nodes;
      params.max_path = max_path;
      params.tokens = device_tokens.data();
      params.path = device_path.data();
      params.count = count.data();
      params.next_root = next_root.data();
      params.num_end_tokens = 2;
      params.end_tokens = end_tokens.data();
      params.finished = finished.data();
      params.step = step.data();
      params.entries = ring.entries();
      EXPECT_FALSE(ring.is_ready(i));
      ASSERT_EQ(cudaSuccess, publish(context, params));
      ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());
      ASSERT_TRUE(ring.is_ready(i));
      EXPECT_FALSE(ring.is_ready(i + 1));

      const bool first_step = i == 0;
      EXPECT_EQ(first_step ? (std::vector<int32_t>{1, 5, 7}) : std::vector<int32_t>{},
                ring.read(i, 0).tokens);
      EXPECT_EQ(first_step ? (std::vector<int32_t>{1001, 1005, 9}) : std::vector<int32_t>{},
                ring.read(i, 1).tokens);
      EXPECT_EQ((std::vector<int32_t>{2001, 72}), ring.read(i, 2).tokens);
      const std::vector<int32_t> long_path = ring.read(i, 3).tokens;
      ASSERT_EQ(45u, long_path.size());
      EXPECT_EQ(3047, long_path[43]);
      EXPECT_EQ(73, long_path[44]);
      EXPECT_TRUE(ring.read(i, 0).finished && ring.read(i, 1).finished);
      EXPECT_FALSE(ring.read(i, 2).finished || ring.read(i, 3).finished);
      // What compact sees: nothing behind the end, and nothing of a finished sequence.
      EXPECT_EQ((std::vector<int32_t>{first_step ? 3 : 0, first_step ? 3 : 0, 2, 45}),
                count.host());
      EXPECT_EQ(first_step ? (std::vector<int32_t>{7, 9, 72, 73}) : roots, next_root.host());
    }
  });
}

}  // namespace
}  // namespace medusa::cuda::testing
