// The K/V cache as kernels see it, and the moves in it.
// Dimension letters and conventions: core/params/rows.h.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/host_device.h"

namespace medusa {

/// Positions of a page. Pages hold absolute positions, and the kernels' blocks and splits of keys
/// divide them: a key's place in every sum follows from its position, whatever page it is in.
constexpr int32_t kPageRows = 256;

/// The pages that hold each slot's rows, in their order: row i is row i % kPageRows of its page
/// i / kPageRows. Rows after a slot's last page are not used.
struct PageTable {
  const int32_t* pages = nullptr;  // [B, pages_per_slot]; null: slot b's rows are one run
  int32_t pages_per_slot = 0;

  /// The distance of row `row` of slot `slot` from the first row of slot 0, or of page 0: a slot
  /// and a page begin `slot_stride` after the one before.
  MEDUSA_HOST_DEVICE int64_t row_offset(int64_t slot, int64_t row, int64_t slot_stride,
                                        int64_t row_stride) const {
    if (pages == nullptr) return slot * slot_stride + row * row_stride;
    return pages[slot * pages_per_slot + row / kPageRows] * slot_stride +
           row % kPageRows * row_stride;
  }
};

/// K and V of one layer, [B, G, S, D] each with these strides and D contiguous; in pages,
/// [pages, G, kPageRows, D].
struct KvCache {
  DType dtype = DType::kFloat32;
  int32_t num_kv_heads = 0;  // G
  int32_t head_size = 0;     // D
  int32_t num_rows = 0;      // S, of a slot
  int64_t slot_stride = 0;   // from slot to slot, or page to page
  int64_t head_stride = 0;
  int64_t row_stride = 0;
  void* k = nullptr;
  void* v = nullptr;
  /// float32 each, in rows next to each other; int8 only: one scale per head and row.
  float* k_scales = nullptr;
  float* v_scales = nullptr;
  int64_t scale_slot_stride = 0;
  int64_t scale_head_stride = 0;
  PageTable page_table;

  MEDUSA_HOST_DEVICE int64_t row_offset(int64_t slot, int64_t head, int64_t row) const {
    return head * head_stride + page_table.row_offset(slot, row, slot_stride, row_stride);
  }
  MEDUSA_HOST_DEVICE int64_t scale_offset(int64_t slot, int64_t head, int64_t row) const {
    return head * scale_head_stride + page_table.row_offset(slot, row, scale_slot_stride, 1);
  }
};

/// Moves the rows of the accepted path together, in place, by bytes:
/// row length + path[i] -> length + i in every cache; then length += count.
struct CompactParams {
  int32_t num_caches = 0;         // 2L: K and V of every layer
  void* const* caches = nullptr;  // [num_caches] of [B, G, S, row_bytes], or pages of it
  int32_t num_sequences = 0;      // B
  int32_t num_kv_heads = 0;       // G
  int64_t row_bytes = 0;          // D elements
  int64_t row_stride = 0;         // bytes
  int64_t head_stride = 0;        // bytes
  int64_t slot_stride = 0;        // bytes, from slot to slot, or page to page
  PageTable page_table;
  int32_t max_path = 0;                  // P
  const int32_t* cache_slots = nullptr;  // [B], or null: sequence b is slot b
  const int32_t* path = nullptr;         // [B, P], ascending node indices
  const int32_t* count = nullptr;        // [B], 0: nothing accepted
  int32_t* length = nullptr;             // [B], advanced by count
  bool advance = true;  // false: caches of another row size follow in the same step
};

}  // namespace medusa
