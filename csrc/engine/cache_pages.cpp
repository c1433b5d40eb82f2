#include "engine/cache_pages.h"

#include <algorithm>
#include <string>

#include "core/checks.h"
#include "core/errors.h"

namespace medusa {
namespace {

int32_t pages_within(const Model& model, DType dtype, int32_t num_slots, int32_t num_rows,
                     int64_t memory) {
  const int32_t pages_per_slot = KvCacheStorage::pages_for(num_rows);
  if (memory == 0) return num_slots * pages_per_slot;
  const int64_t page_bytes = KvCacheStorage::page_bytes(model.config(), dtype);
  const int64_t least = page_bytes * pages_per_slot;
  if (memory < least) {
    fail("kv_memory", "at least " + std::to_string(least) + " bytes, for one sequence", memory);
  }
  return static_cast<int32_t>(std::min<int64_t>(memory / page_bytes, INT32_MAX));
}

int32_t common_start(const CachePages::Text& a, const CachePages::Text& b) {
  const auto most = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return static_cast<int32_t>(std::mismatch(a.begin(), a.begin() + most, b.begin()).first -
                              a.begin());
}

}  // namespace

CachePages::CachePages(const Model& model, DType dtype, int32_t num_slots, int32_t num_rows,
                       int64_t memory)
    : storage_(model, dtype, num_slots, num_rows,
               pages_within(model, dtype, num_slots, num_rows, memory)),
      pool_(pages_within(model, dtype, num_slots, num_rows, memory)),
      index_(pool_.num_pages()),
      slots_(static_cast<size_t>(num_slots)) {
  stats_.page_bytes = KvCacheStorage::page_bytes(model.config(), dtype);
  stats_.num_pages = pool_.num_pages();
}

CacheStats CachePages::stats() const {
  CacheStats stats = stats_;
  stats.num_free = pool_.num_free();
  stats.num_idle = pool_.num_idle();
  return stats;
}

int32_t CachePages::num_owed(int32_t slot) const {
  int32_t owed = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const int32_t missing = slots_[i].num_promised - static_cast<int32_t>(slots_[i].pages.size());
    if (static_cast<int32_t>(i) != slot) owed += std::max(missing, 0);
  }
  return owed;
}

void CachePages::fail_full(int32_t num_missing) const {
  throw OutOfMemory("K/V cache: ", stats_.page_bytes * num_missing);
}

int32_t CachePages::take(int32_t slot) {
  if (pool_.num_free() + pool_.num_idle() <= num_owed(slot)) fail_full(1);
  if (pool_.num_free() == 0) forget(pool_.least_recently_used());
  return pool_.take();
}

void CachePages::forget(int32_t page) {
  for (int32_t erased : index_.erase(page)) pool_.set_kept(erased, false);
}

void CachePages::set_page(Context& context, int32_t slot, size_t index, int32_t page) {
  std::vector<int32_t>& pages = at(slot).pages;
  if (index == pages.size()) pages.push_back(page);
  pages[index] = page;
  storage_.set_page(context, slot, static_cast<int32_t>(index), page);
}

void CachePages::reserve(Context& context, int32_t slot, int32_t begin, int32_t end) {
  std::vector<int32_t>& pages = at(slot).pages;
  const size_t first = static_cast<size_t>(begin / kPageRows);
  if (first < pages.size()) {
    const int32_t page = pages[first];
    if (pool_.references(page) > 1 || pool_.is_kept(page)) {
      const int32_t own = take(slot);
      storage_.copy_rows(context, page, own, begin % kPageRows);
      set_page(context, slot, first, own);
      pool_.drop_reference(page);
    }
  }
  const size_t num_pages = static_cast<size_t>(KvCacheStorage::pages_for(end));
  while (pages.size() < num_pages) set_page(context, slot, pages.size(), take(slot));
}

void CachePages::truncate(int32_t slot, int32_t num_rows) {
  std::vector<int32_t>& pages = at(slot).pages;
  const size_t num_pages = static_cast<size_t>(KvCacheStorage::pages_for(num_rows));
  for (; pages.size() > num_pages; pages.pop_back()) pool_.drop_reference(pages.back());
}

void CachePages::release(int32_t slot, const Text& text) {
  truncate(slot, static_cast<int32_t>(text.size()));
  std::vector<int32_t>& pages = at(slot).pages;
  int32_t parent = -1;
  for (size_t i = 0; i < pages.size(); ++i) {
    const auto first = static_cast<int32_t>(i) * kPageRows;
    const int32_t count = std::min(static_cast<int32_t>(text.size()) - first, kPageRows);
    parent = index_.insert(parent, text.data() + first, count, pages[i]);
    pool_.set_kept(parent, true);
  }
  truncate(slot, 0);  // from the last page on: a page is used after all that follow it
  at(slot).num_promised = 0;
}

PrefixIndex::Match CachePages::longest_start(const Text& text,
                                             const std::vector<const Text*>& slots) const {
  const int32_t most = static_cast<int32_t>(text.size()) - 1;  // its output decides what comes next
  PrefixIndex::Match match = index_.find(text.data(), most);
  for (size_t i = 0; i < slots.size(); ++i) {
    const int32_t common = std::min(common_start(*slots[i], text), most);
    if (common <= match.num_rows) continue;
    const std::vector<int32_t>& pages = slots_[i].pages;
    match.num_rows = common;
    match.pages.assign(pages.begin(), pages.begin() + KvCacheStorage::pages_for(common));
  }
  return match;
}

bool CachePages::can_adopt(const PrefixIndex::Match& match) const {
  const int32_t num_rows = match.num_rows % kPageRows;
  if (num_rows == 0) return false;
  const int32_t page = match.pages.back();
  return pool_.references(page) == 0 && index_.num_tokens(page) == num_rows;
}

bool CachePages::has_room(const PrefixIndex::Match& match, int32_t num_pages) const {
  const auto is_idle = [&](int32_t page) { return pool_.references(page) == 0; };
  const auto num_woken = std::count_if(match.pages.begin(), match.pages.end(), is_idle);
  const int32_t num_there = match.num_rows / kPageRows + (can_adopt(match) ? 1 : 0);
  return pool_.num_free() + pool_.num_idle() - num_woken - num_owed(-1) >= num_pages - num_there;
}

PrefixIndex::Match CachePages::fitting_start(const Text& text, int32_t num_pages,
                                             const std::vector<const Text*>& slots) const {
  PrefixIndex::Match match = longest_start(text, slots);
  if (has_room(match, num_pages)) return match;
  match.pages.resize(static_cast<size_t>(match.num_rows / kPageRows));
  match.num_rows = static_cast<int32_t>(match.pages.size()) * kPageRows;
  return match;
}

bool CachePages::can_begin(const Text& text, int32_t num_rows,
                           const std::vector<const Text*>& slots) const {
  const int32_t num_pages = KvCacheStorage::pages_for(num_rows);
  return has_room(fitting_start(text, num_pages, slots), num_pages);
}

int32_t CachePages::begin(Context& context, int32_t slot, const Text& text, int32_t num_rows,
                          const std::vector<const Text*>& slots) {
  const int32_t num_pages = KvCacheStorage::pages_for(num_rows);
  const PrefixIndex::Match match = fitting_start(text, num_pages, slots);
  if (!has_room(match, num_pages)) fail_full(num_pages);
  at(slot).num_promised = num_pages;
  const bool adopts = can_adopt(match);
  for (int32_t page : match.pages) {
    pool_.add_reference(page);
    set_page(context, slot, at(slot).pages.size(), page);
  }
  if (adopts) forget(match.pages.back());
  reserve(context, slot, match.num_rows, match.num_rows);  // else copies the last page's rows
  ++stats_.begins;
  stats_.hits += match.num_rows > 0 ? 1 : 0;
  stats_.rows_reused += match.num_rows;
  return match.num_rows;
}

}  // namespace medusa
