#include "engine/page_pool.h"

namespace medusa {

PagePool::PagePool(int32_t num_pages) : pages_(static_cast<size_t>(num_pages)) {
  for (int32_t page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

int32_t PagePool::take() {
  const int32_t page = free_.back();
  free_.pop_back();
  at(page).references = 1;
  return page;
}

void PagePool::add_reference(int32_t page) {
  Page& p = at(page);
  if (p.references++ == 0) --num_idle_;
}

void PagePool::drop_reference(int32_t page) {
  Page& p = at(page);
  if (--p.references > 0) return;
  p.dropped_at = ++clock_;
  if (p.is_kept) {
    ++num_idle_;
  } else {
    free_.push_back(page);
  }
}

void PagePool::set_kept(int32_t page, bool is_kept) {
  Page& p = at(page);
  if (p.is_kept == is_kept) return;
  p.is_kept = is_kept;
  if (p.references > 0) return;
  num_idle_ += is_kept ? 1 : -1;
  if (!is_kept) free_.push_back(page);
}

int32_t PagePool::least_recently_used() const {
  int32_t oldest = -1;
  for (int32_t page = 0; page < num_pages(); ++page) {
    const Page& p = at(page);
    if (p.references > 0 || !p.is_kept) continue;
    if (oldest < 0 || p.dropped_at < at(oldest).dropped_at) oldest = page;
  }
  return oldest;
}

}  // namespace medusa
