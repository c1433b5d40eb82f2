// Which pages each slot's rows are in: taken as texts grow, shared by texts that begin alike, kept
// for texts to come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/page_pool.h"
#include "engine/prefix_index.h"

namespace medusa {

struct CacheStats {
  int64_t page_bytes = 0;
  int32_t num_pages = 0;
  int32_t num_free = 0;  // never used, or given back
  int32_t num_idle = 0;  // kept for texts to come, free when they are needed
  int64_t begins = 0;    // texts that `begin` was called for
  int64_t hits = 0;      // of these, texts that started from rows that were there
  int64_t rows_reused = 0;
};

/// A page that several texts share, or that is kept, is never written to: a text that needs to
/// write there (after it was truncated) gets a page of its own first.
class CachePages {
 public:
  using Text = std::vector<int32_t>;  // tokens whose rows are in a slot

  /// Slots of at most `num_rows` rows; `memory` is the most bytes that pages may take together, 0:
  /// as many as all slots need at their longest. Throws std::invalid_argument when one slot's rows
  /// do not fit.
  CachePages(const Model& model, DType dtype, int32_t num_slots, int32_t num_rows, int64_t memory);

  const KvCacheStorage& storage() const { return storage_; }
  CacheStats stats() const;

  /// Makes rows begin … end - 1 of a slot, which has `begin` rows, ready to be written. Throws
  /// OutOfMemory when no page is left that is not promised to others.
  void reserve(Context& context, int32_t slot, int32_t begin, int32_t end);
  /// Gives back the pages after the slot's first `num_rows` rows.
  void truncate(int32_t slot, int32_t num_rows);
  /// Empties a slot and takes back what it was promised; the pages that hold its text are kept for
  /// texts that begin alike.
  void release(int32_t slot, const Text& text);

  /// Whether a text can begin now and grow to `num_rows` rows, whatever the others do.
  bool can_begin(const Text& text, int32_t num_rows, const std::vector<const Text*>& slots) const;
  /// Starts an empty slot from the longest start of `text` that is in the cache, its last token
  /// excepted, and promises it the pages for `num_rows` rows; returns the rows it has. `slots` are
  /// the texts of all slots. Throws OutOfMemory where `can_begin` is false.
  int32_t begin(Context& context, int32_t slot, const Text& text, int32_t num_rows,
                const std::vector<const Text*>& slots);

 private:
  struct Slot {
    std::vector<int32_t> pages;
    int32_t num_promised = 0;  // pages that it may come to have
  };

  Slot& at(int32_t slot) { return slots_[static_cast<size_t>(slot)]; }
  /// Whether a text that starts with all that its match's last page holds, which is not full, can
  /// go on in that page: nobody else has it.
  bool can_adopt(const PrefixIndex::Match& match) const;
  PrefixIndex::Match longest_start(const Text& text, const std::vector<const Text*>& slots) const;
  /// Whether a text that starts with `match` can come to have `num_pages` in all.
  bool has_room(const PrefixIndex::Match& match, int32_t num_pages) const;
  /// The longest start with which there is room; without a last page whose rows would have to be
  /// copied where that page itself is needed.
  PrefixIndex::Match fitting_start(const Text& text, int32_t num_pages,
                                   const std::vector<const Text*>& slots) const;
  /// Pages that slots but `slot` were promised and do not have yet.
  int32_t num_owed(int32_t slot) const;
  int32_t take(int32_t slot);
  /// No text to come starts with this page.
  void forget(int32_t page);
  void set_page(Context& context, int32_t slot, size_t index, int32_t page);
  [[noreturn]] void fail_full(int32_t num_missing) const;

  KvCacheStorage storage_;
  PagePool pool_;
  PrefixIndex index_;
  std::vector<Slot> slots_;
  CacheStats stats_;
};

}  // namespace medusa
