#include "engine/prefix_index.h"

#include <algorithm>
#include <iterator>

#include "core/params/cache.h"

namespace medusa {
namespace {

int32_t common_start(const std::vector<int32_t>& tokens, const int32_t* others, int32_t count) {
  const int32_t most = std::min(static_cast<int32_t>(tokens.size()), count);
  const auto end = std::mismatch(tokens.begin(), tokens.begin() + most, others).first;
  return static_cast<int32_t>(end - tokens.begin());
}

}  // namespace

PrefixIndex::PrefixIndex(int32_t num_pages) : nodes_(static_cast<size_t>(num_pages)) {}

const PrefixIndex::Children& PrefixIndex::children_of(int32_t page) const {
  return page < 0 ? first_pages_ : nodes_[static_cast<size_t>(page)].children;
}

PrefixIndex::Match PrefixIndex::find(const int32_t* tokens, int32_t count) const {
  Match match;
  for (int32_t parent = -1; match.num_rows < count; parent = match.pages.back()) {
    const int32_t* rest = tokens + match.num_rows;
    const int32_t num_rest = std::min(count - match.num_rows, kPageRows);
    const Children& children = children_of(parent);
    // The texts are sorted: those that share most with `rest` are its neighbours.
    const auto next = children.lower_bound(std::vector<int32_t>(rest, rest + num_rest));
    int32_t page = -1, most = 0;
    const auto consider = [&](Children::const_iterator child) {
      const int32_t common = common_start(child->first, rest, num_rest);
      if (common > most) page = child->second, most = common;
    };
    if (next != children.end()) consider(next);
    if (next != children.begin()) consider(std::prev(next));
    if (most == 0) break;
    match.pages.push_back(page);
    match.num_rows += most;
    if (most < kPageRows) break;
  }
  return match;
}

int32_t PrefixIndex::insert(int32_t parent, const int32_t* tokens, int32_t count, int32_t page) {
  Children& children = parent < 0 ? first_pages_ : nodes_[static_cast<size_t>(parent)].children;
  const auto [child, is_new] = children.emplace(std::vector<int32_t>(tokens, tokens + count), page);
  if (is_new) {
    Node& node = nodes_[static_cast<size_t>(page)];
    node.parent = parent;
    node.tokens = child->first;
  }
  return child->second;
}

std::vector<int32_t> PrefixIndex::erase(int32_t page) {
  const Node& top = nodes_[static_cast<size_t>(page)];
  Children& siblings =
      top.parent < 0 ? first_pages_ : nodes_[static_cast<size_t>(top.parent)].children;
  siblings.erase(top.tokens);
  std::vector<int32_t> erased = {page};
  for (size_t i = 0; i < erased.size(); ++i) {
    Node& node = nodes_[static_cast<size_t>(erased[i])];
    for (const auto& child : node.children) erased.push_back(child.second);
    node = Node();
  }
  return erased;
}

}  // namespace medusa
