// The ends of a step on the device: trees from drafts, and results through the host's memory.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "cuda/runtime/kernels.h"
#include "tests/cuda/attention_case.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"

namespace medusa::cuda::testing {
namespace {

constexpr int kHeads = 3, kTopK = 4;

struct Tree {
  std::vector<int32_t> tokens, parents;
};

/// The same, by a map from (parent, token) to the child.
Tree merge(const Tree& drafts, const int32_t* top_ids, int num_drafts) {
  Tree tree = drafts;
  std::map<std::pair<int, int>, int> children;
  std::vector<int> nodes = {0};
  for (int j = 1; j < static_cast<int>(drafts.tokens.size()); ++j) {
    int token = drafts.tokens[j];
    for (int k = 0; k < kHeads; ++k) {
      for (int rank = 0; rank < kTopK; ++rank) {
        if (drafts.tokens[j] == head_draft(k, rank)) token = top_ids[k * kTopK + rank];
      }
    }
    const int parent = j < num_drafts ? nodes[drafts.parents[j]] : -1;
    const auto found = children.find({parent, token});
    const bool is_new = parent >= 0 && token >= 0 && found == children.end();
    nodes.push_back(is_new ? j : parent >= 0 && token >= 0 ? found->second : -1);
    if (is_new) children.emplace(std::pair(parent, token), j);
    tree.tokens[j] = is_new ? token : tree.tokens[0];
    tree.parents[j] = is_new ? parent : -1;
  }
  return tree;
}

/// Trees in which drafts meet: few different tokens, and heads that propose the same ones.
Tree random_drafts(int num_drafts, int max_nodes, std::mt19937& random) {
  Tree drafts;
  drafts.parents =
      random_parents(random() % 2 == 0 ? TreeKind::kRandom : TreeKind::kDeep, num_drafts, random);
  for (int j = 0; j < num_drafts; ++j) {
    const bool is_head_draft = j > 0 && random() % 2 == 0;
    const auto k = static_cast<int>(random() % kHeads), rank = static_cast<int>(random() % kTopK);
    drafts.tokens.push_back(is_head_draft ? head_draft(k, rank) : static_cast<int>(random() % 6));
  }
  // What comes after the drafts is not looked at.
  drafts.tokens.resize(max_nodes, 1 << 30);
  drafts.parents.resize(max_nodes, 1 << 30);
  return drafts;
}

TEST(MergeDrafts, EqualSiblingsAreOne) {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const int max_nodes = seed % 3 == 0 ? 4 : seed % 3 == 1 ? 64 : 100;
    const std::vector<int32_t> num_drafts = {max_nodes, 1, max_nodes * 2 / 3};
    std::vector<int32_t> top_ids, tokens, parents, expected_tokens, expected_parents;
    for (int i = 0; i < 3 * kHeads * kTopK; ++i) {
      top_ids.push_back(random() % 9 == 0 ? -1 : static_cast<int>(random() % 6));
    }
    for (int b = 0; b < 3; ++b) {
      const Tree drafts = random_drafts(num_drafts[b], max_nodes, random);
      const Tree tree = merge(drafts, top_ids.data() + b * kHeads * kTopK, num_drafts[b]);
      tokens.insert(tokens.end(), drafts.tokens.begin(), drafts.tokens.end());
      parents.insert(parents.end(), drafts.parents.begin(), drafts.parents.end());
      expected_tokens.insert(expected_tokens.end(), tree.tokens.begin(), tree.tokens.end());
      expected_parents.insert(expected_parents.end(), tree.parents.begin(), tree.parents.end());
    }
    const DeviceVector<int32_t> ids(top_ids), draft_tokens(tokens), draft_parents(parents),
        counts(num_drafts);
    under_schedules([&] {
      const DeviceVector<int32_t> out_tokens(tokens.size()), out_parents(tokens.size()), nodes(3);
      MergeDraftsParams params;
      params.num_sequences = 3;
      params.max_nodes = max_nodes;
      params.draft_tokens = draft_tokens.data();
      params.draft_parents = draft_parents.data();
      params.num_drafts = counts.data();
      params.num_heads = kHeads;
      params.top_k = kTopK;
      params.top_ids = ids.data();
      params.tokens = out_tokens.data();
      params.parents = out_parents.data();
      params.num_nodes = nodes.data();
      TestContext context;
      ASSERT_EQ(cudaSuccess, merge_drafts(context, params));
      EXPECT_EQ(expected_tokens, out_tokens.host());
      EXPECT_EQ(expected_parents, out_parents.host());
      EXPECT_EQ(num_drafts, nodes.host());
    });
  }
}

/// Two entries for up to 5 sequences and paths of up to 45 nodes.
struct Ring {
  static constexpr int kCapacity = 2, kSequences = 5, kPath = 45;

  StepEntries entries() const {
    return {kCapacity, kSequences, kPath, tokens.data(), paths.data(), counts.data(), steps.data()};
  }
  std::vector<int32_t> row(const DeviceVector<int32_t>& all, int step, int b) const {
    const int row = step % kCapacity * kSequences + b;
    const std::vector<int32_t> values = all.host();
    const auto first = values.begin() + row * kPath;
    return std::vector<int32_t>(first, first + counts.host()[row]);
  }

  DeviceVector<int32_t> tokens{kCapacity * kSequences * kPath};
  DeviceVector<int32_t> paths{kCapacity * kSequences * kPath};
  DeviceVector<int32_t> counts{kCapacity * kSequences};
  DeviceVector<int32_t> steps{kCapacity};
};

// Sequence 0 ends inside its path, 1 at the next root, 2 nowhere, 3 emits a path longer than a
// warp. Each has end tokens of its own: those of others end nothing.
TEST(Publish, EndsAtEndTokensAndFillsTheRing) {
  const int num_sequences = 4, num_nodes = 50, max_path = 45;
  std::vector<int32_t> tokens, path, first_rows;
  for (int b = 0; b < num_sequences; ++b) {
    first_rows.push_back(b * num_nodes);
    for (int j = 0; j < num_nodes; ++j) tokens.push_back(1000 * b + j);
    for (int i = 0; i < max_path; ++i) path.push_back(i < 2 ? i : i + 3);
  }
  tokens[6] = 7;  // node 6 is path[3]
  const DeviceVector<int32_t> device_tokens(tokens), device_path(path), rows(first_rows),
      slots({4, 2, 0, 1}), end_tokens({70, 1001, 9, 7, 9, -1, 72, 73, 9, 7});
  under_schedules([&] {
    const Ring ring;
    for (int32_t number = 1; number <= 3; ++number) {
      SCOPED_TRACE(::testing::Message() << "step " << number);
      const DeviceVector<int32_t> count({5, 3, 2, 45}), next_root({70, 9, 72, 73}),
          step(std::vector<int32_t>{number});
      PublishParams params;
      params.num_sequences = num_sequences;
      params.max_path = max_path;
      params.first_rows = rows.data();
      params.tokens = device_tokens.data();
      params.path = device_path.data();
      params.count = count.data();
      params.next_root = next_root.data();
      params.slots = slots.data();
      params.num_end_tokens = 2;
      params.end_tokens = end_tokens.data();
      params.step = step.data();
      params.entries = ring.entries();
      TestContext context;
      ASSERT_EQ(cudaSuccess, publish(context, params));
      EXPECT_EQ(number, ring.steps.host()[number % 2]);
      EXPECT_EQ((std::vector<int32_t>{1, 5, 7}), ring.row(ring.tokens, number, 0));
      EXPECT_EQ((std::vector<int32_t>{0, 1, 5}), ring.row(ring.paths, number, 0));
      EXPECT_EQ((std::vector<int32_t>{1001, 1005, 9}), ring.row(ring.tokens, number, 1));
      EXPECT_EQ((std::vector<int32_t>{2001, 72}), ring.row(ring.tokens, number, 2));
      const std::vector<int32_t> long_path = ring.row(ring.tokens, number, 3);
      ASSERT_EQ(45u, long_path.size());
      EXPECT_EQ(3047, long_path[43]);
      EXPECT_EQ(73, long_path[44]);
      EXPECT_EQ(47, ring.row(ring.paths, number, 3).back());
      // What compact sees: nothing after the end.
      EXPECT_EQ((std::vector<int32_t>{3, 3, 2, 45}), count.host());
      EXPECT_EQ((std::vector<int32_t>{7, 9, 72, 73}), next_root.host());
    }
  });
}

}  // namespace
}  // namespace medusa::cuda::testing
