#include "core/token_tree.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/checks.h"
#include "core/params/heads.h"

namespace medusa {
namespace {

using Ints = std::vector<int32_t>;

std::string entry(const char* array, size_t index) {
  return "tree: " + std::string(array) + "[" + std::to_string(index) + "]";
}

std::string range(int64_t least, int64_t most) {
  return std::to_string(least) + " to " + std::to_string(most);
}

void check_sizes(const Ints& parents, const Ints& ranks) {
  const auto num_nodes = static_cast<int64_t>(parents.size());
  if (num_nodes < 1 || num_nodes > TokenTree::kMaxNodes) {
    fail("tree: parents", range(1, TokenTree::kMaxNodes) + " nodes, the root included", num_nodes);
  }
  if (ranks.size() != parents.size()) {
    fail("tree: ranks", "as many as parents, " + std::to_string(num_nodes),
         static_cast<int64_t>(ranks.size()));
  }
}

void check_root(const Ints& parents, const Ints& ranks) {
  if (parents[0] != -1) fail(entry("parents", 0), "-1, the root", parents[0]);
  if (ranks[0] != 0) fail(entry("ranks", 0), "0, the root's", ranks[0]);
}

void check_node(const Ints& parents, const Ints& ranks, size_t node) {
  const int32_t parent = parents[node], least = std::max(parents[node - 1], 0);
  const auto most = static_cast<int32_t>(node) - 1;
  if (parent < least || parent > most) {
    fail(entry("parents", node), "an earlier node, " + range(least, most), parent);
  }
  const int32_t lowest = parent == parents[node - 1] ? ranks[node - 1] + 1 : 0;
  if (ranks[node] < lowest || ranks[node] >= kMaxHeadRanks) {
    fail(entry("ranks", node), range(lowest, kMaxHeadRanks - 1), ranks[node]);
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

TokenTree::TokenTree(Ints parents, Ints ranks)
    : parents_(std::move(parents)), ranks_(std::move(ranks)) {
  check_sizes(parents_, ranks_);
  check_root(parents_, ranks_);
  for (size_t node = 1; node < parents_.size(); ++node) {
    check_node(parents_, ranks_, node);
    const int32_t first_of_depth = depth_offsets_[depth_offsets_.size() - 2];
    if (parents_[node] >= first_of_depth) depth_offsets_.push_back(0);  // a new depth begins
    depth_offsets_.back() = static_cast<int32_t>(node) + 1;
    max_rank_ = std::max(max_rank_, ranks_[node]);
  }
}

}  // namespace medusa
