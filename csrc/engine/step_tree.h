// One sequence's tree of a step, grown node by node by the drafters.
#pragma once

#include <cstdint>
#include <vector>

namespace medusa {

class StepTree {
 public:
  /// Only the root; nodes may be at depths up to `max_depth`, `max_nodes` in all.
  void reset(int32_t root, int32_t max_nodes, int32_t max_depth);

  /// No node at all.
  void clear();

  /// A child of `parent`; an equal sibling is reused. The node, or -1 where there is no room.
  /// Throws std::invalid_argument when `parent` is no node of the tree.
  int32_t add(int32_t parent, int32_t token);

  /// The root and these nodes after it, parents first; tokens[0] and parents[0] are not looked at.
  /// Equal siblings become one, and what has no room is left out with all below it.
  void assign(const std::vector<int32_t>& tokens, const std::vector<int32_t>& parents);

  /// The child of `parent` with that token, or -1.
  int32_t child(int32_t parent, int32_t token) const;

  int32_t num_nodes() const { return static_cast<int32_t>(tokens_.size()); }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::vector<int32_t>& parents() const { return parents_; }
  const std::vector<int32_t>& depths() const { return depths_; }

 private:
  std::vector<int32_t> tokens_;
  std::vector<int32_t> parents_;
  std::vector<int32_t> depths_;
  std::vector<int32_t> last_children_;  // [N] latest child or -1
  std::vector<int32_t> siblings_;       // [N] the sibling added before, or -1
  std::vector<int32_t> nodes_;          // scratch of assign: what its nodes have become
  int32_t max_nodes_ = 1;
  int32_t max_depth_ = 0;
};

}  // namespace medusa
