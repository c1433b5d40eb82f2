// A step's tree as data: parents, depths, ranks and ancestor masks of its nodes.
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

/// An immutable, checked tree. Node 0 is the root and parents come before their children.
class TokenTree {
 public:
  static constexpr int32_t kMaxNodes = 1024;

  /// The tree of rank paths, the root added: path (c_1 … c_d) is the node that takes rank c_i of
  /// head i - 1 along the way. Nodes are ordered breadth first, by (depth, path). Throws
  /// std::invalid_argument when a path is empty, longer than num_heads, holds a rank outside
  /// 0 … top_k - 1, occurs twice or lacks its prefix, or when there are more than kMaxNodes nodes.
  static TokenTree from_paths(std::vector<std::vector<int32_t>> paths, int32_t num_heads,
                              int32_t top_k);

  /// The tree of given parents, -1 for node 0; node order is kept, and a node's rank is its order
  /// among its siblings. Throws std::invalid_argument when parents is empty or has more than
  /// kMaxNodes entries, when node 0 is no root or when a parent does not come before its child.
  static TokenTree from_parents(std::vector<int32_t> parents);

  int32_t num_nodes() const { return static_cast<int32_t>(parents_.size()); }
  int32_t mask_words() const { return mask_words_for(num_nodes()); }
  /// Nodes on the longest path, the root included.
  int32_t max_path() const { return max_path_; }

  const std::vector<int32_t>& parents() const { return parents_; }  // [N]
  const std::vector<int32_t>& depths() const { return depths_; }    // [N]
  /// [N]; the root's is 0 and means nothing.
  const std::vector<int32_t>& ranks() const { return ranks_; }
  const std::vector<uint64_t>& ancestors() const { return ancestors_; }  // [N, mask_words]

  /// The rank paths of all nodes but the root, in node order.
  std::vector<std::vector<int32_t>> paths() const;

 private:
  TokenTree(std::vector<int32_t> parents, std::vector<int32_t> ranks);

  std::vector<int32_t> parents_;
  std::vector<int32_t> ranks_;
  std::vector<int32_t> depths_;
  std::vector<uint64_t> ancestors_;
  int32_t max_path_ = 1;
};

}  // namespace medusa
