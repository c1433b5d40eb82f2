// Texts whose keys and values are in pages: which pages a new text can start from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace medusa {

/// A tree of pages: a page holds up to kPageRows tokens, and follows the page that holds the
/// tokens before them. Only full pages are followed by others.
class PrefixIndex {
 public:
  explicit PrefixIndex(int32_t num_pages);

  /// Pages of the longest known start of a text; all are full but perhaps the last one, of whose
  /// rows only the first ones may fit.
  struct Match {
    std::vector<int32_t> pages;
    int32_t num_rows = 0;
  };
  Match find(const int32_t* tokens, int32_t count) const;

  /// Adds `page`, which holds `count` tokens after those of page `parent` (-1: the text's first).
  /// Returns the page that stands for them: another one if they were known.
  int32_t insert(int32_t parent, const int32_t* tokens, int32_t count, int32_t page);
  /// Of a page that was inserted.
  int32_t num_tokens(int32_t page) const {
    return static_cast<int32_t>(nodes_[static_cast<size_t>(page)].tokens.size());
  }
  /// Takes a page out, and with it all that follow it; returns these pages.
  std::vector<int32_t> erase(int32_t page);

 private:
  using Children = std::map<std::vector<int32_t>, int32_t>;  // tokens to page
  struct Node {
    int32_t parent = -1;
    std::vector<int32_t> tokens;
    Children children;
  };
  const Children& children_of(int32_t page) const;

  Children first_pages_;
  std::vector<Node> nodes_;  // by page
};

}  // namespace medusa
