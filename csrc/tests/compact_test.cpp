#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/kernels_under_test.h"
#include "tests/paged_rows.h"

namespace medusa {
namespace {

using Ints = std::vector<int32_t>;

struct CompactCase {
  int num_caches = 4, num_slots = 3, num_kv_heads = 2, num_rows = 40;
  int64_t row_bytes = 24, row_stride = 32;
  Ints slots, path, count, length;
  int max_path = 5;
  bool advance = true;
  bool in_pages = false;  // the rows are in shuffled pages
  std::vector<std::vector<char>> caches;

  void fill() {
    std::mt19937 random(4);
    caches.assign(num_caches, std::vector<char>(num_slots * num_kv_heads * num_rows * row_stride));
    for (auto& cache : caches) {
      for (char& byte : cache) byte = static_cast<char>(random());
    }
  }

  int64_t head_stride() const { return num_rows * row_stride; }

  void run(int num_threads) {
    const PagedRows paged(num_slots, num_rows);
    std::vector<void*> pointers;
    for (auto& cache : caches) {
      if (in_pages) cache = paged.cut(cache, num_kv_heads, row_stride, '\0');
      pointers.push_back(cache.data());
    }
    CompactParams p;
    if (in_pages) p.page_table = paged.table(paged.pages.data());
    p.num_caches = num_caches;
    p.caches = pointers.data();
    p.num_sequences = static_cast<int32_t>(count.size());
    p.num_kv_heads = num_kv_heads;
    p.row_bytes = row_bytes;
    p.row_stride = row_stride;
    p.head_stride = in_pages ? kPageRows * row_stride : head_stride();
    p.slot_stride = p.head_stride * num_kv_heads;
    p.max_path = max_path;
    p.cache_slots = slots.empty() ? nullptr : slots.data();
    p.path = path.data();
    p.count = count.data();
    p.length = length.data();
    p.advance = advance;
    cpu::CpuContext context(num_threads);
    kernels_under_test().compact(context, p);
    if (!in_pages) return;
    for (auto& cache : caches) cache = paged.joined(cache, num_kv_heads, row_stride);
  }

  /// What the caches must hold: all rows read before any is written.
  std::vector<std::vector<char>> expected() const {
    auto out = caches;
    for (size_t b = 0; b < count.size(); ++b) {
      const int slot = slots.empty() ? static_cast<int>(b) : slots[b];
      for (size_t i = 0; i < out.size(); ++i) {
        for (int g = 0; g < num_kv_heads; ++g) {
          const int64_t rows = (slot * num_kv_heads + g) * head_stride() + length[b] * row_stride;
          for (int n = 0; n < count[b]; ++n) {
            for (int64_t byte = 0; byte < row_bytes; ++byte) {
              out[i][rows + n * row_stride + byte] =
                  caches[i][rows + path[b * max_path + n] * row_stride + byte];
            }
          }
        }
      }
    }
    return out;
  }
};

TEST(Compact, MovesOverlappingRowsOfEverySequence) {
  for (int num_threads : {1, 2}) {
    CompactCase c;
    c.slots = {2, 0, 1};
    c.path = {0, 1, 3, 4, 9, 0, 2, 3, -1, -1, 0, -1, -1, -1, -1};
    c.count = {5, 3, 1};
    c.length = {30, 0, 39};
    c.fill();
    const auto expected = c.expected();
    c.run(num_threads);
    EXPECT_EQ(c.caches, expected);
    EXPECT_EQ(c.length, (Ints{35, 3, 40}));
  }
}

TEST(Compact, CountZeroMovesNothing) {
  CompactCase c;
  c.path = {3, 4, 5, 6, 7};
  c.count = {0};
  c.length = {10};
  c.fill();
  const auto before = c.caches;
  c.run(1);
  EXPECT_EQ(c.caches, before);
  EXPECT_EQ(c.length, Ints{10});
}

TEST(Compact, LeavesTheLengthToALaterCall) {
  CompactCase c;
  c.path = {0, 4, 5, 6, 7};
  c.count = {3};
  c.length = {10};
  c.advance = false;
  c.fill();
  const auto expected = c.expected();
  c.run(1);
  EXPECT_EQ(c.caches, expected);
  EXPECT_EQ(c.length, Ints{10});
}

TEST(Compact, MovesRowsFromPageToPage) {
  CompactCase c;
  c.in_pages = true;
  c.num_rows = 600;
  c.slots = {2, 0, 1};
  c.path = {0, 1, 3, 4, 9, 0, 2, 300, -1, -1, 0, -1, -1, -1, -1};
  c.count = {5, 3, 1};
  c.length = {254, 250, 511};
  c.fill();
  const auto expected = c.expected();
  c.run(2);
  EXPECT_EQ(c.caches, expected);
  EXPECT_EQ(c.length, (Ints{259, 253, 512}));
}

TEST(Compact, LargeRowsAcrossThreads) {
  CompactCase c;
  c.num_caches = 9;
  c.row_bytes = c.row_stride = 4096;
  c.num_slots = 1;
  c.path = {0, 2, 5, 8, 20};
  c.count = {5};
  c.length = {15};
  c.fill();
  const auto expected = c.expected();
  c.run(3);
  EXPECT_EQ(c.caches, expected);
}

}  // namespace
}  // namespace medusa
