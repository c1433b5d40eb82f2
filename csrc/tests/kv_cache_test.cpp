// The cache's memory: where the planes of the layers are, and what a compaction of it addresses.
#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/kernels_under_test.h"
#include "tests/tiny_model.h"

namespace medusa {
namespace {

constexpr int32_t kSlots = 3;
constexpr int32_t kRows = 11;

std::shared_ptr<Model> tiny_model() {
  testing::TinyOptions options;
  options.format = kFloat32Weights;
  options.isa = isas_under_test().front();
  return testing::make_tiny_model(options);
}

struct Plane {
  uint8_t* data;
  int64_t row_bytes;
  int64_t num_rows;  // of all slots and heads

  int64_t bytes() const { return row_bytes * num_rows; }
};

/// K, V and, of an int8 cache, their scales, layer by layer.
std::vector<Plane> planes_of(const KvCacheStorage& storage) {
  std::vector<Plane> planes;
  for (const KvCache& layer : storage.layers()) {
    const int64_t num_rows = int64_t{kSlots} * layer.num_kv_heads * layer.num_rows;
    for (void* data : {layer.k, layer.v}) {
      planes.push_back({static_cast<uint8_t*>(data),
                        int64_t{layer.head_size} * dtype_bytes(layer.dtype), num_rows});
    }
    for (float* scales : {layer.k_scales, layer.v_scales}) {
      if (scales) planes.push_back({reinterpret_cast<uint8_t*>(scales), sizeof(float), num_rows});
    }
  }
  return planes;
}

class KvCacheOf : public ::testing::TestWithParam<DType> {};

TEST_P(KvCacheOf, PlanesDoNotOverlap) {
  const std::shared_ptr<Model> model = tiny_model();
  const KvCacheStorage storage(*model, GetParam(), kSlots, kRows);
  const std::vector<Plane> planes = planes_of(storage);
  const size_t per_layer = GetParam() == DType::kInt8 ? 4 : 2;
  ASSERT_EQ(planes.size(), per_layer * static_cast<size_t>(model->config().num_layers()));
  for (size_t i = 0; i < planes.size(); ++i) {
    std::memset(planes[i].data, static_cast<int>(i + 1), static_cast<size_t>(planes[i].bytes()));
  }
  for (size_t i = 0; i < planes.size(); ++i) {
    const std::vector<uint8_t> expected(static_cast<size_t>(planes[i].bytes()),
                                        static_cast<uint8_t>(i + 1));
    EXPECT_EQ(std::memcmp(planes[i].data, expected.data(), expected.size()), 0) << "plane " << i;
  }
}

TEST_P(KvCacheOf, CompactionMovesARowOfEveryPlaneInItsSlotAlone) {
  const std::shared_ptr<Model> model = tiny_model();
  const KvCacheStorage storage(*model, GetParam(), kSlots, kRows);
  const std::vector<Plane> planes = planes_of(storage);
  for (const Plane& plane : planes) {  // every row holds its own number
    for (int64_t row = 0; row < plane.num_rows; ++row) {
      std::memset(plane.data + row * plane.row_bytes, static_cast<int>(row),
                  static_cast<size_t>(plane.row_bytes));
    }
  }
  const int32_t slot = 1, path = 3, count = 1;
  int32_t length = 5;
  cpu::CpuContext context(1);
  for (CompactParams params : {storage.compact_scales(), storage.compact_rows()}) {
    params.num_sequences = params.max_path = 1;
    params.cache_slots = &slot;
    params.path = &path;
    params.count = &count;
    params.length = &length;
    params.advance = false;
    if (params.num_caches > 0) kernels_under_test().compact(context, params);
  }
  const int64_t num_heads = model->config().num_kv_heads;
  for (const Plane& plane : planes) {
    for (int64_t row = 0; row < plane.num_rows; ++row) {
      const bool is_moved = row / kRows / num_heads == slot && row % kRows == length;
      const std::vector<uint8_t> expected(static_cast<size_t>(plane.row_bytes),
                                          static_cast<uint8_t>(is_moved ? row + path : row));
      EXPECT_EQ(std::memcmp(plane.data + row * plane.row_bytes, expected.data(), expected.size()),
                0)
          << "row " << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, KvCacheOf,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16, DType::kFloat16,
                                           DType::kInt8));

}  // namespace
}  // namespace medusa
