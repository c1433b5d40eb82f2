// Caches of one run per slot cut into pages, for tests that compare the two.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "core/params/cache.h"

namespace medusa {

/// Pages for `num_slots` slots of `num_rows` rows, in random order; every second page is nobody's.
class PagedRows {
 public:
  PagedRows(int num_slots, int64_t num_rows, unsigned seed = 1)
      : num_rows_(num_rows), pages_per_slot_((num_rows + kPageRows - 1) / kPageRows) {
    for (int i = 0; i < num_slots * pages_per_slot_; ++i) pages.push_back(2 * i + 1);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(seed));
  }

  PageTable table(const int32_t* on_device) const {
    return {on_device, static_cast<int32_t>(pages_per_slot_)};
  }
  int64_t num_pages() const { return 2 * static_cast<int64_t>(pages.size()) + 1; }

  /// [slots, heads, rows, width] as [pages, heads, kPageRows, width]; `unused` is in all other
  /// rows.
  template <typename T>
  std::vector<T> cut(const std::vector<T>& run, int64_t num_heads, int64_t width, T unused) const {
    std::vector<T> paged(num_pages() * num_heads * kPageRows * width, unused);
    for_each_row(run.size() / width, num_heads, [&](int64_t row, int64_t paged_row) {
      std::copy_n(run.begin() + row * width, width, paged.begin() + paged_row * width);
    });
    return paged;
  }

  /// What `cut` was made from, or what has become of it.
  template <typename T>
  std::vector<T> joined(const std::vector<T>& paged, int64_t num_heads, int64_t width) const {
    const int64_t num_slots = static_cast<int64_t>(pages.size()) / pages_per_slot_;
    std::vector<T> run(num_slots * num_heads * num_rows_ * width);
    for_each_row(run.size() / width, num_heads, [&](int64_t row, int64_t paged_row) {
      std::copy_n(paged.begin() + paged_row * width, width, run.begin() + row * width);
    });
    return run;
  }

  std::vector<int32_t> pages;  // [slots, pages per slot]

 private:
  template <typename F>
  void for_each_row(int64_t total, int64_t num_heads, F&& visit) const {
    for (int64_t i = 0; i < total; ++i) {
      const int64_t row = i % num_rows_, head = i / num_rows_ % num_heads;
      const int64_t slot = i / num_rows_ / num_heads;
      const int64_t page = pages[slot * pages_per_slot_ + row / kPageRows];
      visit(i, (page * num_heads + head) * kPageRows + row % kPageRows);
    }
  }

  int64_t num_rows_, pages_per_slot_;
};

}  // namespace medusa
