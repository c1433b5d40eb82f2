// The cache's memory: where the planes of the layers are in its pages, and what moves in them.
#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "tests/kernels_under_test.h"
#include "tests/tiny_model.h"

namespace medusa {
namespace {

constexpr int32_t kSlots = 3;
constexpr int32_t kRows = 300;  // two pages a slot
constexpr int32_t kPages = 7;

std::shared_ptr<Model> tiny_model() {
  testing::TinyOptions options;
  options.format = kFloat32Weights;
  options.isa = isas_under_test().front();
  return testing::make_tiny_model(options);
}

/// K, V or, of an int8 cache, scales of one layer: rows of every page and head.
struct Plane {
  uint8_t* data;
  int64_t row_bytes, head_bytes, page_bytes;
  int32_t num_heads;

  uint8_t* row(int64_t page, int64_t head, int64_t i) const {
    return data + page * page_bytes + head * head_bytes + i * row_bytes;
  }
  /// visit(page, head, row within the page) for all rows.
  template <typename F>
  void for_each_row(F&& visit) const {
    for (int64_t page = 0; page < kPages; ++page) {
      for (int64_t head = 0; head < num_heads; ++head) {
        for (int64_t i = 0; i < kPageRows; ++i) visit(page, head, i);
      }
    }
  }
  std::vector<uint8_t> bytes_of(int64_t page, int64_t head, int64_t i) const {
    return {row(page, head, i), row(page, head, i) + row_bytes};
  }
};

std::vector<Plane> planes_of(const KvCacheStorage& storage) {
  std::vector<Plane> planes;
  for (const KvCache& layer : storage.layers()) {
    const int64_t bytes = dtype_bytes(layer.dtype);
    for (void* data : {layer.k, layer.v}) {
      planes.push_back({static_cast<uint8_t*>(data), layer.row_stride * bytes,
                        layer.head_stride * bytes, layer.slot_stride * bytes, layer.num_kv_heads});
    }
    for (float* scales : {layer.k_scales, layer.v_scales}) {
      if (!scales) continue;
      planes.push_back({reinterpret_cast<uint8_t*>(scales), 4, 4 * layer.scale_head_stride,
                        4 * layer.scale_slot_stride, layer.num_kv_heads});
    }
  }
  return planes;
}

/// A byte that differs from row to row nearby.
uint8_t mark(size_t plane, int64_t page, int64_t head, int64_t row) {
  return static_cast<uint8_t>(plane * 31 + static_cast<size_t>(page * 17 + head * 5 + row));
}

void mark_all(const std::vector<Plane>& planes) {
  for (size_t p = 0; p < planes.size(); ++p) {
    planes[p].for_each_row([&](int64_t page, int64_t head, int64_t row) {
      std::memset(planes[p].row(page, head, row), mark(p, page, head, row),
                  static_cast<size_t>(planes[p].row_bytes));
    });
  }
}

/// Every row holds the mark of the row that `source` names: (page, row) -> (page, row).
template <typename F>
void expect_marks(const std::vector<Plane>& planes, F&& source) {
  for (size_t p = 0; p < planes.size(); ++p) {
    planes[p].for_each_row([&](int64_t page, int64_t head, int64_t row) {
      const auto [from_page, from_row] = source(page, row);
      const std::vector<uint8_t> expected(static_cast<size_t>(planes[p].row_bytes),
                                          mark(p, from_page, head, from_row));
      ASSERT_EQ(planes[p].bytes_of(page, head, row), expected)
          << "plane " << p << ", page " << page << ", head " << head << ", row " << row;
    });
  }
}

using Place = std::pair<int64_t, int64_t>;  // page, row

class KvCacheOf : public ::testing::TestWithParam<DType> {
 protected:
  KvCacheOf() : model_(tiny_model()), storage_(*model_, GetParam(), kSlots, kRows, kPages) {}

  std::shared_ptr<Model> model_;
  KvCacheStorage storage_;
  cpu::CpuContext context_{1};
};

TEST_P(KvCacheOf, PlanesDoNotOverlapAndFillThePages) {
  const std::vector<Plane> planes = planes_of(storage_);
  const size_t per_layer = GetParam() == DType::kInt8 ? 4 : 2;
  ASSERT_EQ(planes.size(), per_layer * static_cast<size_t>(model_->config().num_layers()));
  mark_all(planes);
  expect_marks(planes, [](int64_t page, int64_t row) { return Place(page, row); });
  int64_t bytes = 0;
  for (const Plane& plane : planes) bytes += plane.num_heads * plane.head_bytes;
  EXPECT_EQ(bytes, KvCacheStorage::page_bytes(model_->config(), GetParam()));
}

TEST_P(KvCacheOf, CompactionMovesARowOfEveryPlaneInItsSlotAlone) {
  const std::vector<Plane> planes = planes_of(storage_);
  storage_.set_page(context_, 1, 0, 5);
  storage_.set_page(context_, 1, 1, 2);
  mark_all(planes);
  const int32_t slot = 1, path = 3, count = 1;
  int32_t length = 254;
  for (CompactParams params : {storage_.compact_scales(), storage_.compact_rows()}) {
    params.num_sequences = params.max_path = 1;
    params.cache_slots = &slot;
    params.path = &path;
    params.count = &count;
    params.length = &length;
    params.advance = false;
    if (params.num_caches > 0) kernels_under_test().compact(context_, params);
  }
  expect_marks(planes, [](int64_t page, int64_t row) {
    return page == 5 && row == 254 ? Place(2, 1) : Place(page, row);
  });
}

TEST_P(KvCacheOf, CopiesTheFirstRowsOfAPage) {
  const std::vector<Plane> planes = planes_of(storage_);
  for (int32_t count : {0, 1, 100, 256}) {
    mark_all(planes);
    storage_.copy_rows(context_, 6, 3, count);
    expect_marks(planes, [&](int64_t page, int64_t row) {
      return page == 3 && row < count ? Place(6, row) : Place(page, row);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Types, KvCacheOf,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16, DType::kFloat16,
                                           DType::kInt8));

}  // namespace
}  // namespace medusa
