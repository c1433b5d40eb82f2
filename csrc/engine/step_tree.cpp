#include "engine/step_tree.h"

#include <stdexcept>
#include <string>

namespace medusa {

void StepTree::reset(int32_t root, int32_t max_nodes, int32_t max_depth) {
  max_nodes_ = max_nodes;
  max_depth_ = max_depth;
  tokens_.assign(1, root);
  parents_.assign(1, -1);
  depths_.assign(1, 0);
  last_children_.assign(1, -1);
  siblings_.assign(1, -1);
}

void StepTree::clear() {
  tokens_.clear();
  parents_.clear();
  depths_.clear();
}

void StepTree::assign(const std::vector<int32_t>& tokens, const std::vector<int32_t>& parents) {
  reset(tokens_[0], max_nodes_, max_depth_);
  nodes_.assign(1, 0);
  for (size_t node = 1; node < tokens.size(); ++node) {
    const int32_t parent = nodes_[static_cast<size_t>(parents[node])];
    nodes_.push_back(parent < 0 ? -1 : add(parent, tokens[node]));
  }
}

int32_t StepTree::child(int32_t parent, int32_t token) const {
  int32_t node = last_children_[static_cast<size_t>(parent)];
  while (node >= 0 && tokens_[static_cast<size_t>(node)] != token) {
    node = siblings_[static_cast<size_t>(node)];
  }
  return node;
}

int32_t StepTree::add(int32_t parent, int32_t token) {
  if (parent < 0 || parent >= num_nodes()) {
    throw std::invalid_argument("add_node: parent, needs a node from 0 to " +
                                std::to_string(num_nodes() - 1) + ", got " +
                                std::to_string(parent));
  }
  const int32_t existing = child(parent, token);
  if (existing >= 0) return existing;
  const size_t p = static_cast<size_t>(parent);
  const int32_t node = num_nodes();
  const int32_t depth = depths_[p] + 1;
  if (node >= max_nodes_ || depth > max_depth_) return -1;
  tokens_.push_back(token);
  parents_.push_back(parent);
  depths_.push_back(depth);
  siblings_.push_back(last_children_[p]);
  last_children_.push_back(-1);
  last_children_[p] = node;
  return node;
}

}  // namespace medusa
