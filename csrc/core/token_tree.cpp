#include "core/token_tree.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

namespace medusa {
namespace {

using Path = std::vector<int32_t>;

std::string to_string(const Path& path) {
  std::string text = "[";
  for (size_t i = 0; i < path.size(); ++i) text += (i ? ", " : "") + std::to_string(path[i]);
  return text + "]";
}

void check(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("tree: " + message);
}

void check_num_nodes(size_t num_nodes) {
  check(num_nodes <= TokenTree::kMaxNodes, "at most " + std::to_string(TokenTree::kMaxNodes) +
                                               " nodes, the root included, got " +
                                               std::to_string(num_nodes));
}

void check_path(const Path& path, size_t index, int32_t num_heads, int32_t top_k) {
  const std::string name = "paths[" + std::to_string(index) + "]";
  check(!path.empty(), name + " needs at least one rank, got []");
  check(path.size() <= static_cast<size_t>(num_heads),
        name + " needs at most " + std::to_string(num_heads) + " ranks, one per head, got " +
            to_string(path));
  for (int32_t rank : path) {
    check(rank >= 0 && rank < top_k, name + " needs ranks from 0 to " + std::to_string(top_k - 1) +
                                         ", got " + to_string(path));
  }
}

}  // namespace

void fill_ancestors(const int32_t* parents, int32_t num_nodes, int32_t mask_words, int32_t* depths,
                    uint64_t* ancestors) {
  for (int32_t node = 0; node < num_nodes; ++node) {
    uint64_t* mask = ancestors + int64_t{node} * mask_words;
    const int32_t parent = parents[node];
    if (parent < 0) {
      depths[node] = 0;
      std::fill(mask, mask + mask_words, 0);
    } else {
      depths[node] = depths[parent] + 1;
      std::copy_n(ancestors + int64_t{parent} * mask_words, mask_words, mask);
    }
    mask[node / 64] |= uint64_t{1} << node % 64;
  }
}

TokenTree::TokenTree(std::vector<int32_t> parents, std::vector<int32_t> ranks)
    : parents_(std::move(parents)),
      ranks_(std::move(ranks)),
      depths_(parents_.size()),
      ancestors_(parents_.size() * mask_words()) {
  fill_ancestors(parents_.data(), num_nodes(), mask_words(), depths_.data(), ancestors_.data());
  max_path_ = 1 + *std::max_element(depths_.begin(), depths_.end());
}

TokenTree TokenTree::from_paths(std::vector<Path> paths, int32_t num_heads, int32_t top_k) {
  check_num_nodes(paths.size() + 1);
  for (size_t i = 0; i < paths.size(); ++i) check_path(paths[i], i, num_heads, top_k);
  std::sort(paths.begin(), paths.end(), [](const Path& a, const Path& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  });

  std::map<Path, int32_t> nodes = {{Path{}, 0}};
  std::vector<int32_t> parents = {-1};
  std::vector<int32_t> ranks = {0};
  for (const Path& path : paths) {
    const Path prefix(path.begin(), path.end() - 1);
    const auto parent = nodes.find(prefix);
    check(parent != nodes.end(), "path " + to_string(path) + " needs its prefix " +
                                     to_string(prefix) + " among the paths, got none");
    const bool is_new = nodes.emplace(path, static_cast<int32_t>(parents.size())).second;
    check(is_new, "paths need to be distinct, got " + to_string(path) + " twice");
    parents.push_back(parent->second);
    ranks.push_back(path.back());
  }
  return TokenTree(std::move(parents), std::move(ranks));
}

TokenTree TokenTree::from_parents(std::vector<int32_t> parents) {
  check(!parents.empty(), "parents needs at least the root, got []");
  check_num_nodes(parents.size());
  check(parents[0] == -1, "parents[0] needs to be -1, the root, got " + std::to_string(parents[0]));
  std::vector<int32_t> num_children(parents.size());
  std::vector<int32_t> ranks(parents.size());
  for (size_t node = 1; node < parents.size(); ++node) {
    const int32_t parent = parents[node];
    check(parent >= 0 && static_cast<size_t>(parent) < node,
          "parents[" + std::to_string(node) + "] needs an earlier node, 0 to " +
              std::to_string(node - 1) + ", got " + std::to_string(parent));
    ranks[node] = num_children[parent]++;
  }
  return TokenTree(std::move(parents), std::move(ranks));
}

std::vector<Path> TokenTree::paths() const {
  std::vector<Path> paths(parents_.size());
  for (size_t node = 1; node < parents_.size(); ++node) {
    paths[node] = paths[parents_[node]];
    paths[node].push_back(ranks_[node]);
  }
  paths.erase(paths.begin());
  return paths;
}

}  // namespace medusa
