#include "core/token_tree.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace medusa {
namespace {

using Paths = std::vector<std::vector<int32_t>>;
using Ints = std::vector<int32_t>;

/// The message of the std::invalid_argument that `make` throws.
template <typename Make>
std::string message_of(Make make) {
  try {
    make();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "no error";
}

std::string path_error(const Paths& paths, int32_t num_heads = 4, int32_t top_k = 10) {
  return message_of([&] { TokenTree::from_paths(paths, num_heads, top_k); });
}

bool is_ancestor(const TokenTree& tree, int32_t ancestor, int32_t node) {
  const uint64_t word = tree.ancestors()[node * tree.mask_words() + ancestor / 64];
  return word >> ancestor % 64 & 1;
}

/// Every bit of every mask against a walk over the parents.
void expect_masks_match_parents(const TokenTree& tree) {
  for (int32_t node = 0; node < tree.num_nodes(); ++node) {
    std::vector<bool> expected(tree.mask_words() * 64);
    for (int32_t at = node; at >= 0; at = tree.parents()[at]) expected[at] = true;
    for (size_t other = 0; other < expected.size(); ++other) {
      EXPECT_EQ(is_ancestor(tree, static_cast<int32_t>(other), node), expected[other])
          << "node " << node << ", bit " << other;
    }
  }
}

TEST(TokenTree, OrdersPathsByDepthThenPath) {
  const TokenTree tree =
      TokenTree::from_paths({{1, 0}, {0, 2}, {1}, {0, 0, 1}, {0}, {0, 0}}, 4, 10);
  EXPECT_EQ(tree.num_nodes(), 7);
  EXPECT_EQ(tree.max_path(), 4);
  EXPECT_EQ(tree.parents(), (Ints{-1, 0, 0, 1, 1, 2, 3}));
  EXPECT_EQ(tree.depths(), (Ints{0, 1, 1, 2, 2, 2, 3}));
  EXPECT_EQ(tree.ranks(), (Ints{0, 0, 1, 0, 2, 0, 1}));
  EXPECT_EQ(tree.ancestors(),
            (std::vector<uint64_t>{0b1, 0b11, 0b101, 0b1011, 0b10011, 0b100101, 0b1001011}));
  EXPECT_EQ(tree.paths(), (Paths{{0}, {1}, {0, 0}, {0, 2}, {1, 0}, {0, 0, 1}}));
}

TEST(TokenTree, NoPathsGiveTheRootAlone) {
  const TokenTree tree = TokenTree::from_paths({}, 4, 10);
  EXPECT_EQ(tree.num_nodes(), 1);
  EXPECT_EQ(tree.max_path(), 1);
  EXPECT_EQ(tree.mask_words(), 1);
  EXPECT_EQ(tree.ancestors(), std::vector<uint64_t>{1});
  EXPECT_TRUE(tree.paths().empty());
}

TEST(TokenTree, MasksCrossWords) {
  for (int32_t num_nodes : {63, 64, 65, 128, 129, 1024}) {
    Ints parents = {-1};
    for (int32_t node = 1; node < num_nodes; ++node) parents.push_back((node - 1) / 2);
    const TokenTree tree = TokenTree::from_parents(parents);
    EXPECT_EQ(tree.mask_words(), (num_nodes + 63) / 64);
    expect_masks_match_parents(tree);
  }
}

TEST(TokenTree, ParentsKeepTheirOrder) {
  const Ints parents = {-1, 0, 1, 0, 1, 2};
  const TokenTree tree = TokenTree::from_parents(parents);
  EXPECT_EQ(tree.parents(), parents);
  EXPECT_EQ(tree.depths(), (Ints{0, 1, 2, 1, 2, 3}));
  EXPECT_EQ(tree.ranks(), (Ints{0, 0, 0, 1, 1, 0}));
  expect_masks_match_parents(tree);
}

TEST(TokenTree, ChainOfAllNodes) {
  Ints parents;
  for (int32_t node = 0; node < TokenTree::kMaxNodes; ++node) parents.push_back(node - 1);
  const TokenTree tree = TokenTree::from_parents(parents);
  EXPECT_EQ(tree.max_path(), TokenTree::kMaxNodes);
  EXPECT_EQ(tree.depths().back(), TokenTree::kMaxNodes - 1);
}

TEST(FillAncestors, SecondRootSeesItselfAlone) {
  const Ints parents = {-1, 0, -1};
  Ints depths(3, 7);
  std::vector<uint64_t> ancestors(3 * 2, ~uint64_t{0});
  fill_ancestors(parents.data(), 3, 2, depths.data(), ancestors.data());
  EXPECT_EQ(depths, (Ints{0, 1, 0}));
  EXPECT_EQ(ancestors, (std::vector<uint64_t>{0b1, 0, 0b11, 0, 0b100, 0}));
}

TEST(TokenTreeErrors, NameWhatWasNeededAndGot) {
  EXPECT_EQ(path_error({{0}, {}}), "tree: paths[1] needs at least one rank, got []");
  EXPECT_EQ(path_error({{0}, {0, 0}, {0, 0, 0}}, 2),
            "tree: paths[2] needs at most 2 ranks, one per head, got [0, 0, 0]");
  EXPECT_EQ(path_error({{0}, {3}}, 4, 3), "tree: paths[1] needs ranks from 0 to 2, got [3]");
  EXPECT_EQ(path_error({{0}, {0, -1}}), "tree: paths[1] needs ranks from 0 to 9, got [0, -1]");
  EXPECT_EQ(path_error({{0}, {0, 1}, {0}}), "tree: paths need to be distinct, got [0] twice");
  EXPECT_EQ(path_error({{0}, {1, 2}}),
            "tree: path [1, 2] needs its prefix [1] among the paths, got none");
  Paths many;
  for (int32_t rank = 0; rank < TokenTree::kMaxNodes; ++rank) many.push_back({rank});
  EXPECT_EQ(path_error(many, 1, 2000), "tree: at most 1024 nodes, the root included, got 1025");
}

TEST(TokenTreeErrors, ParentsComeBeforeChildren) {
  const auto error = [](const Ints& parents) {
    return message_of([&] { TokenTree::from_parents(parents); });
  };
  EXPECT_EQ(error({}), "tree: parents needs at least the root, got []");
  EXPECT_EQ(error({0}), "tree: parents[0] needs to be -1, the root, got 0");
  EXPECT_EQ(error({-1, 0, 2}), "tree: parents[2] needs an earlier node, 0 to 1, got 2");
  EXPECT_EQ(error({-1, -1}), "tree: parents[1] needs an earlier node, 0 to 0, got -1");
  EXPECT_EQ(error(Ints(1025, 0)), "tree: at most 1024 nodes, the root included, got 1025");
}

}  // namespace
}  // namespace medusa
