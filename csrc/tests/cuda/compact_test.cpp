// Compaction against a plain loop over the rows, in one run per slot and in pages.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "cuda/runtime/kernels.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"
#include "tests/paged_rows.h"

namespace medusa::cuda::testing {
namespace {

struct CompactShape {
  int caches, slots, heads, rows, row_bytes;
  int length = 0;         // added to every sequence's
  bool in_pages = false;  // the rows are in shuffled pages
};

void check_compact(const CompactShape& s, bool advance, unsigned seed) {
  SCOPED_TRACE(::testing::Message() << "row bytes " << s.row_bytes << " seed " << seed);
  std::mt19937 random(seed);
  const int64_t bytes = int64_t{s.slots} * s.heads * s.rows * s.row_bytes;
  const PagedRows paged(s.slots, s.rows);
  const auto placed = [&](const std::vector<unsigned char>& cache) {
    return s.in_pages ? paged.cut(cache, s.heads, s.row_bytes, static_cast<unsigned char>(0))
                      : cache;
  };
  std::vector<std::vector<unsigned char>> caches(s.caches);
  std::vector<DeviceVector<unsigned char>> device;
  std::vector<void*> pointers;
  for (auto& cache : caches) {
    for (int64_t i = 0; i < bytes; ++i) cache.push_back(static_cast<unsigned char>(random()));
    device.emplace_back(placed(cache));
    pointers.push_back(device.back().data());
  }
  // A path with gaps, one that is contiguous, one that becomes so late, and none at all.
  const int max_path = 20, num_sequences = 4;
  std::vector<int32_t> path(max_path * num_sequences, -1), count = {20, 4, 11, 0};
  for (int i = 0; i < 20; ++i)
    path[i] = i == 0 ? 0 : path[i - 1] + 1 + static_cast<int>(random() % 3);
  for (int i = 0; i < 4; ++i) path[max_path + i] = i;
  for (int i = 0; i < 11; ++i) path[2 * max_path + i] = i < 9 ? i : i + 4;
  const std::vector<int32_t> slots = {3, 0, 4, 1};
  const std::vector<int32_t> lengths = {s.length + 3, s.length, s.length + 7, s.length + 2};

  for (int c = 0; c < s.caches; ++c) {
    for (int b = 0; b < num_sequences; ++b) {
      for (int h = 0; h < s.heads; ++h) {
        unsigned char* rows = &caches[c][(int64_t{slots[b]} * s.heads + h) * s.rows * s.row_bytes];
        for (int i = 0; i < count[b]; ++i) {
          std::copy_n(rows + (lengths[b] + path[b * max_path + i]) * s.row_bytes, s.row_bytes,
                      rows + (lengths[b] + i) * s.row_bytes);
        }
      }
    }
  }

  const DeviceVector<void*> device_pointers(pointers);
  const DeviceVector<int32_t> device_path(path), device_count(count), device_slots(slots),
      device_lengths(lengths), pages(paged.pages);
  CompactParams params;
  params.num_caches = s.caches;
  params.caches = device_pointers.data();
  params.num_sequences = num_sequences;
  params.num_kv_heads = s.heads;
  params.row_bytes = s.row_bytes;
  params.row_stride = s.row_bytes;
  params.head_stride = params.row_stride * (s.in_pages ? kPageRows : s.rows);
  params.slot_stride = params.head_stride * s.heads;
  if (s.in_pages) params.page_table = paged.table(pages.data());
  params.max_path = max_path;
  params.cache_slots = device_slots.data();
  params.path = device_path.data();
  params.count = device_count.data();
  params.length = device_lengths.data();
  params.advance = advance;
  TestContext context;
  ASSERT_EQ(cudaSuccess, compact(context, params));
  for (int c = 0; c < s.caches; ++c) {
    EXPECT_EQ(placed(caches[c]), device[c].host()) << "cache " << c;
  }
  for (int b = 0; b < num_sequences; ++b) {
    EXPECT_EQ(lengths[b] + (advance ? count[b] : 0), device_lengths.host()[b]);
  }
}

TEST(Compact, MovesRowsInPlace) {
  unsigned seed = 0;
  for (const int row_bytes : {128, 160, 512, 4, 36, 7}) {
    under_schedules([&] {
      check_compact({3, 5, 2, 70, row_bytes}, row_bytes != 4, ++seed);
      check_compact({3, 5, 2, 400, row_bytes, 240, true}, row_bytes != 4, ++seed);
    });
  }
}

}  // namespace
}  // namespace medusa::cuda::testing
