// What the launcher of tree attention and its instantiations share.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/params/cache.h"
#include "core/params/rows.h"
#include "cuda/runtime/context.h"

namespace medusa::cuda {

constexpr int kMaxSplits = 32;        // one lane each when they are merged
constexpr int kMinSplitKeys = 256;    // fewer keys are not worth a block of their own
constexpr int kFixedSplitKeys = 512;  // deterministic: boundaries at multiples of it

/// Tree attention as the kernels see it.
struct AttentionArgs {
  RowTable rows;
  KvCache cache;
  int32_t num_query_heads;  // Q
  int32_t group;            // Q / G query heads share a KV head
  int32_t sliding_window;
  float scale;
  DType q_dtype;
  const void* q;  // [R, Q, D], rows q_row_stride apart
  int64_t q_row_stride;
  DType out_dtype;
  void* out;           // [R, Q, D]
  int32_t num_splits;  // of the grid; a block finds out how many of them have keys
  int32_t split_keys;  // 0: as many as balance the splits; else fixed
  float* partial_out;  // [R, Q, splits, D], normalised
  float* partial_lse;  // [R, Q, splits], log2-sum-exp2; -inf: no keys, nothing in partial_out
};

struct AttentionGrid {
  int num_warps;      // of a block: 16 packed rows each
  int num_row_tiles;  // of a sequence, at most
};

template <typename T, int kHeadSize>
cudaError_t launch_tree_attention(cudaStream_t stream, const AttentionGrid& grid,
                                  const AttentionArgs& args);

}  // namespace medusa::cuda
