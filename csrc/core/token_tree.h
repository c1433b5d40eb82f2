// Trees as data: the fixed tree that heads fill, and the depths and ancestor masks of any tree.
#pragma once

#include <cstdint>
#include <vector>

namespace medusa {

/// 64-bit words of one node's ancestor mask.
constexpr int32_t mask_words_for(int32_t num_nodes) { return (num_nodes + 63) / 64; }

/// Fills depths [N] and ancestors [N, mask_words] from parents [N], where every parent is an
/// earlier node or -1 (a root). Bit j of a node's mask is set when j is the node itself or an
/// ancestor. Allocates nothing: a tree may change at every step.
void fill_ancestors(const int32_t* parents, int32_t num_nodes, int32_t mask_words, int32_t* depths,
                    uint64_t* ancestors);

/// An immutable, checked tree of heads' ranks: node n of depth d > 0 takes rank ranks[n] of head
/// d - 1. Nodes are ordered breadth first, by (depth, ranks along the path); node 0 is the root.
class TokenTree {
 public:
  static constexpr int32_t kMaxNodes = 1024;

  /// parents [N], -1 for node 0; ranks [N], 0 to kMaxHeadRanks - 1, 0 for node 0. Throws
  /// std::invalid_argument when the sizes differ or are not 1 to kMaxNodes, when node 0 is no
  /// root, when a parent does not come before its child or after its predecessor's parent, or when
  /// the ranks of siblings do not ascend.
  TokenTree(std::vector<int32_t> parents, std::vector<int32_t> ranks);

  int32_t num_nodes() const { return static_cast<int32_t>(parents_.size()); }
  /// Depth of the deepest node: the heads that the tree needs.
  int32_t max_depth() const { return static_cast<int32_t>(depth_offsets_.size()) - 2; }
  int32_t max_rank() const { return max_rank_; }

  const std::vector<int32_t>& parents() const { return parents_; }  // [N]
  const std::vector<int32_t>& ranks() const { return ranks_; }      // [N]
  /// [max_depth + 2]: the nodes of depth d are depth_offsets[d] to depth_offsets[d + 1] - 1.
  const std::vector<int32_t>& depth_offsets() const { return depth_offsets_; }

 private:
  std::vector<int32_t> parents_;
  std::vector<int32_t> ranks_;
  std::vector<int32_t> depth_offsets_ = {0, 1};
  int32_t max_rank_ = 0;
};

}  // namespace medusa
