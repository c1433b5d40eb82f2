// Which pages of the K/V cache are taken, and by how many sequences.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace medusa {

/// A page is free; or referenced by sequences; or idle: no sequence refers to it, but it is kept
/// for a text to come, as long as no other page is free.
class PagePool {
 public:
  explicit PagePool(int32_t num_pages);

  int32_t num_pages() const { return static_cast<int32_t>(pages_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_idle() const { return num_idle_; }
  int32_t references(int32_t page) const { return at(page).references; }
  bool is_kept(int32_t page) const { return at(page).is_kept; }

  /// A free page with one reference; there must be one. Pages used before come first: their memory
  /// is there already.
  int32_t take();
  void add_reference(int32_t page);
  void drop_reference(int32_t page);
  /// Whether the page stays when nobody refers to it.
  void set_kept(int32_t page, bool is_kept);
  /// The idle page whose last reference was dropped before those of all others; -1: none is idle.
  int32_t least_recently_used() const;

 private:
  struct Page {
    int32_t references = 0;
    bool is_kept = false;
    int64_t dropped_at = 0;
  };
  Page& at(int32_t page) { return pages_[static_cast<size_t>(page)]; }
  const Page& at(int32_t page) const { return pages_[static_cast<size_t>(page)]; }

  std::vector<Page> pages_;
  std::vector<int32_t> free_;  // the next one to take is the last
  int32_t num_idle_ = 0;
  int64_t clock_ = 0;
};

}  // namespace medusa
