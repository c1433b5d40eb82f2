// The K/V cache as kernels see it, and the moves in it.
// Dimension letters and conventions: core/params/rows.h.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace medusa {

/// K and V of one layer, [B, G, S, D] each with these strides and D contiguous.
struct KvCache {
  DType dtype = DType::kFloat32;
  int32_t num_kv_heads = 0;  // G
  int32_t head_size = 0;     // D
  int32_t num_rows = 0;      // S
  int64_t slot_stride = 0;
  int64_t head_stride = 0;
  int64_t row_stride = 0;
  void* k = nullptr;
  void* v = nullptr;
  /// [B, G, S] float32 each, contiguous; int8 only: one scale per head and row.
  float* k_scales = nullptr;
  float* v_scales = nullptr;
};

/// Moves the rows of the accepted path together, in place, by bytes:
/// row length + path[i] -> length + i in every cache; then length += count.
struct CompactParams {
  int32_t num_caches = 0;                // 2L: K and V of every layer
  void* const* caches = nullptr;         // [num_caches] of [B, G, S, row_bytes]
  int32_t num_sequences = 0;             // B
  int32_t num_kv_heads = 0;              // G
  int64_t row_bytes = 0;                 // D elements
  int64_t row_stride = 0;                // bytes
  int64_t head_stride = 0;               // bytes
  int64_t slot_stride = 0;               // bytes
  int32_t max_path = 0;                  // P
  const int32_t* cache_slots = nullptr;  // [B], or null: sequence b is slot b
  const int32_t* path = nullptr;         // [B, P], ascending node indices
  const int32_t* count = nullptr;        // [B], 0: nothing accepted
  int32_t* length = nullptr;             // [B], advanced by count
  bool advance = true;  // false: caches of another row size follow in the same step
};

}  // namespace medusa
