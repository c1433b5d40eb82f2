// Rotary positions and tree attention.
// Dimension letters and conventions: core/params/rows.h.
#pragma once

#include <cstdint>

#include "core/activations.h"
#include "core/params/cache.h"
#include "core/params/rows.h"

namespace medusa {

/// Rotates Q and K by position (Hugging Face's half-split layout), normalises heads first where
/// they have norms, and appends K and V to the cache at row length + node.
struct RopeAppendParams {
  RowTable rows;
  KvCache cache;
  int32_t num_query_heads = 0;     // Q
  float* qkv = nullptr;            // [R, (Q + 2G) * D]; Q is rotated in place
  const float* cos_sin = nullptr;  // [max positions, D]: cos of D/2 frequencies, then sin
  const float* q_norm = nullptr;   // [D] or null
  const float* k_norm = nullptr;   // [D] or null
  float epsilon = 0;
};

/// Attention of each row over the prefix, its ancestors and itself.
struct TreeAttentionParams {
  RowTable rows;
  KvCache cache;
  int32_t num_query_heads = 0;  // Q, a multiple of G
  int32_t sliding_window = 0;   // 0: none; else keys at positions > position - window are seen
  float scale = 0;              // usually 1 / sqrt(D)
  DType q_dtype = DType::kFloat32;
  const void* q = nullptr;      // [R, Q, D]
  int64_t q_row_stride = 0;     // elements from one row to the next; heads are contiguous
  void* out = nullptr;          // [R, Q, D] contiguous, in q_dtype
  Activations out_activations;  // written instead of `out` when its data is set (width Q * D)
};

}  // namespace medusa
