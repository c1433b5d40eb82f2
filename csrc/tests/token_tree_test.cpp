#include "core/token_tree.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace medusa {
namespace {

using Ints = std::vector<int32_t>;

/// The message of the std::invalid_argument that making the tree throws.
std::string error_of(const Ints& parents, const Ints& ranks) {
  try {
    TokenTree(parents, ranks);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "no error";
}

TEST(TokenTree, DepthsFollowFromParents) {
  const Ints parents = {-1, 0, 0, 1, 1, 2, 3}, ranks = {0, 0, 1, 0, 2, 0, 1};
  const TokenTree tree(parents, ranks);
  EXPECT_EQ(tree.num_nodes(), 7);
  EXPECT_EQ(tree.max_depth(), 3);
  EXPECT_EQ(tree.max_rank(), 2);
  EXPECT_EQ(tree.parents(), parents);
  EXPECT_EQ(tree.ranks(), ranks);
  EXPECT_EQ(tree.depth_offsets(), (Ints{0, 1, 3, 6, 7}));
}

TEST(TokenTree, RootAlone) {
  const TokenTree tree({-1}, {0});
  EXPECT_EQ(tree.num_nodes(), 1);
  EXPECT_EQ(tree.max_depth(), 0);
  EXPECT_EQ(tree.max_rank(), 0);
  EXPECT_EQ(tree.depth_offsets(), (Ints{0, 1}));
}

TEST(TokenTree, ChainOfAllNodes) {
  Ints parents;
  for (int32_t node = 0; node < TokenTree::kMaxNodes; ++node) parents.push_back(node - 1);
  const TokenTree tree(parents, Ints(parents.size()));
  EXPECT_EQ(tree.max_depth(), TokenTree::kMaxNodes - 1);
  EXPECT_EQ(tree.depth_offsets().back(), TokenTree::kMaxNodes);
}

TEST(FillAncestors, SecondRootSeesItselfAlone) {
  const Ints parents = {-1, 0, -1};
  Ints depths(3, 7);
  std::vector<uint64_t> ancestors(3 * 2, ~uint64_t{0});
  fill_ancestors(parents.data(), 3, 2, depths.data(), ancestors.data());
  EXPECT_EQ(depths, (Ints{0, 1, 0}));
  EXPECT_EQ(ancestors, (std::vector<uint64_t>{0b1, 0, 0b11, 0, 0b100, 0}));
}

// Every bit of every mask against a walk over the parents.
TEST(FillAncestors, MasksCrossWords) {
  for (int32_t num_nodes : {63, 64, 65, 128, 129, 1024}) {
    Ints parents = {-1}, depths(num_nodes);
    for (int32_t node = 1; node < num_nodes; ++node) parents.push_back((node - 1) / 2);
    const int32_t words = mask_words_for(num_nodes);
    ASSERT_EQ(words, (num_nodes + 63) / 64);
    std::vector<uint64_t> ancestors(int64_t{num_nodes} * words, ~uint64_t{0});
    fill_ancestors(parents.data(), num_nodes, words, depths.data(), ancestors.data());
    for (int32_t node = 0; node < num_nodes; ++node) {
      std::vector<bool> expected(words * 64);
      for (int32_t at = node; at >= 0; at = parents[at]) expected[at] = true;
      for (int32_t other = 0; other < words * 64; ++other) {
        const uint64_t word = ancestors[node * words + other / 64];
        ASSERT_EQ(word >> other % 64 & 1, expected[other]) << "node " << node << ", bit " << other;
      }
    }
  }
}

TEST(TokenTreeErrors, NameWhatWasNeededAndGot) {
  const std::string sizes = "tree: parents: needs 1 to 1024 nodes, the root included, got ";
  EXPECT_EQ(error_of({}, {}), sizes + "0");
  EXPECT_EQ(error_of(Ints(1025), Ints(1025)), sizes + "1025");
  EXPECT_EQ(error_of({-1, 0}, {0}), "tree: ranks: needs as many as parents, 2, got 1");
  EXPECT_EQ(error_of({0}, {0}), "tree: parents[0]: needs -1, the root, got 0");
  EXPECT_EQ(error_of({-1}, {1}), "tree: ranks[0]: needs 0, the root's, got 1");
}

TEST(TokenTreeErrors, NodesStandBreadthFirst) {
  EXPECT_EQ(error_of({-1, 0, 2}, {0, 0, 0}),
            "tree: parents[2]: needs an earlier node, 0 to 1, got 2");
  EXPECT_EQ(error_of({-1, -1}, {0, 0}), "tree: parents[1]: needs an earlier node, 0 to 0, got -1");
  EXPECT_EQ(error_of({-1, 0, 1, 0}, {0, 0, 0, 1}),
            "tree: parents[3]: needs an earlier node, 1 to 2, got 0");
  EXPECT_EQ(error_of({-1, 0, 0}, {0, 1, 1}), "tree: ranks[2]: needs 2 to 31, got 1");
  EXPECT_EQ(error_of({-1, 0, 1}, {0, 1, -1}), "tree: ranks[2]: needs 0 to 31, got -1");
  EXPECT_EQ(error_of({-1, 0}, {0, 32}), "tree: ranks[1]: needs 0 to 31, got 32");
}

}  // namespace
}  // namespace medusa
