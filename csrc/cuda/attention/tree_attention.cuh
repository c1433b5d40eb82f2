// Tree attention on tensor cores: split-KV over the keys of a sequence, with all query heads that
// share a KV head and all nodes of a tree packed into the rows of 16-row tiles.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/attention/tile_sizes.h"
#include "cuda/attention/tree_attention.h"
#include "cuda/attention/visible_keys.cuh"
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/ptx.cuh"

namespace medusa::cuda {

/// Where a block's rows and keys are.
struct AttentionBlock {
  int64_t first_row;  // of the sequence
  int first_packed;   // packed row of the block's first row
  int num_packed;     // packed rows of the sequence: nodes * group
  int kv_head;
  int length;                // prefix rows
  int first_tile, end_tile;  // key tiles of this split
  int end_key;               // keys from here on are not there
  int first_full_key;        // keys from here up to `length` are seen by every row
};

/// The tiles of one split of keys [begin_key, end_key).
template <int kKeys>
__device__ __forceinline__ void choose_tiles(const AttentionArgs& args, int split, int begin_key,
                                             AttentionBlock& block) {
  const int first = begin_key / kKeys, end = (block.end_key + kKeys - 1) / kKeys;
  if (args.split_keys > 0) {
    const int tiles = args.split_keys / kKeys;
    block.first_tile = max(first, split * tiles);
    block.end_tile = split == args.num_splits - 1 ? end : min(end, (split + 1) * tiles);
  } else {
    constexpr int kMinTiles = kMinSplitKeys / kKeys;
    const int active = min(args.num_splits, (end - first + kMinTiles - 1) / kMinTiles);
    const int tiles = (end - first + active - 1) / active;
    block.first_tile = first + split * tiles;
    block.end_tile = min(end, block.first_tile + tiles);
  }
}

/// Grid (row tiles, splits, B' * G). False: the block has no rows.
template <int kHeadSize>
__device__ __forceinline__ bool find_block(const AttentionArgs& args, AttentionBlock& block) {
  using Tile = TileSizes<kHeadSize>;
  const RowTable& rows = args.rows;
  const int sequence = static_cast<int>(blockIdx.z) / args.cache.num_kv_heads;
  const int rows_per_block = static_cast<int>(blockDim.x) / kWarp * Tile::kRows;
  block.kv_head = static_cast<int>(blockIdx.z) % args.cache.num_kv_heads;
  block.first_row = rows.first_rows[sequence];
  block.num_packed =
      (rows.first_rows[sequence + 1] - static_cast<int>(block.first_row)) * args.group;
  block.first_packed = static_cast<int>(blockIdx.x) * rows_per_block;
  if (block.first_packed >= block.num_packed) return false;
  block.length = rows.lengths[sequence];

  // Every warp looks at all nodes of the block: keys end after the last of them.
  const int first = block.first_packed / args.group;
  const int last = (min(block.first_packed + rows_per_block, block.num_packed) - 1) / args.group;
  int max_node = 0, min_position = 0x7fffffff, max_position = 0;
  for (int i = first + static_cast<int>(threadIdx.x) % kWarp; i <= last; i += kWarp) {
    max_node = max(max_node, rows.nodes[block.first_row + i]);
    min_position = min(min_position, rows.positions[block.first_row + i]);
    max_position = max(max_position, rows.positions[block.first_row + i]);
  }
  block.end_key = block.length + __reduce_max_sync(kAllLanes, max_node) + 1;
  int begin_key = 0;
  block.first_full_key = 0;
  if (args.sliding_window > 0) {
    min_position = __reduce_min_sync(kAllLanes, min_position);
    max_position = __reduce_max_sync(kAllLanes, max_position);
    begin_key = min(max(min_position - args.sliding_window + 1, 0), block.length);
    block.first_full_key = max_position - args.sliding_window + 1;
  }
  choose_tiles<Tile::kKeys>(args, static_cast<int>(blockIdx.y), begin_key, block);
  return true;
}

/// A lane's two rows of the warp's 16: lane / 4 and that plus 8. Rows after the sequence's last
/// repeat it and are not written.
struct LaneRows {
  int64_t row[2];  // of the row table
  int head[2];     // query head
  bool valid[2];
};

__device__ __forceinline__ LaneRows lane_rows(const AttentionArgs& args,
                                              const AttentionBlock& block) {
  LaneRows lane;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int packed = block.first_packed + static_cast<int>(threadIdx.x) / kWarp * 16 +
                       static_cast<int>(threadIdx.x) % kWarp / 4 + i * 8;
    lane.valid[i] = packed < block.num_packed;
    const int clamped = min(packed, block.num_packed - 1);
    lane.row[i] = block.first_row + clamped / args.group;
    lane.head[i] = block.kv_head * args.group + clamped % args.group;
  }
  return lane;
}

/// Columns `column` and the next of one row of Q, rounded to T.
template <typename T, int kHeadSize>
__device__ __forceinline__ uint32_t load_q_pair(const AttentionArgs& args, int64_t row, int head,
                                                int column) {
  const int64_t offset = row * args.q_row_stride + int64_t{head} * kHeadSize + column;
  if (args.q_dtype == DType::kFloat32) {
    const float2 pair =
        *reinterpret_cast<const float2*>(static_cast<const float*>(args.q) + offset);
    return pack_pair<T>(pair.x, pair.y);
  }
  return *reinterpret_cast<const uint32_t*>(static_cast<const T*>(args.q) + offset);
}

/// Starts the copy of tile `tile` of K and of V of a block; rows from end_key on become zeros, so
/// that weights of zero times whatever the cache holds there cannot be NaN.
template <typename T, int kHeadSize>
__device__ __forceinline__ void copy_tile(const KvCache& cache, int64_t slot,
                                          const AttentionBlock& block, int tile, T* shared) {
  using Tile = TileSizes<kHeadSize>;
  constexpr int kUnits = kHeadSize / 8;
  const int first_key = tile * Tile::kKeys;
  const int64_t first = cache.row_offset(slot, block.kv_head, first_key);
  const T* k = static_cast<const T*>(cache.k) + first;
  const T* v = static_cast<const T*>(cache.v) + first;
  for (int i = static_cast<int>(threadIdx.x); i < Tile::kKeys * kUnits;
       i += static_cast<int>(blockDim.x)) {
    const int key = i / kUnits, unit = i % kUnits;
    const bool valid = first_key + key < block.end_key;
    const int64_t offset = key * cache.row_stride + unit * 8;
    T* to = shared + key * Tile::kStride + unit * 8;
    cp_async_16(to, k + offset, valid);
    cp_async_16(to + Tile::kTileElements, v + offset, valid);
  }
  cp_async_commit();
}

/// One warp's online softmax over its 16 rows. A lane holds two rows (index 0 and 1): the running
/// maximum of their scores, its own share of the sum, and its part of the output, not normalised.
template <typename T, int kHeadSize>
struct WarpAttention {
  using Tile = TileSizes<kHeadSize>;

  uint32_t q[Tile::kSharedQ ? 1 : Tile::kKSteps][4];
  float out[Tile::kOutTiles][4];
  float max_score[2];
  float sum[2];

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int tile = 0; tile < Tile::kOutTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[tile][i] = 0;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      max_score[i] = negative_infinity();
      sum[i] = 0;
    }
  }

  /// Fragments of Q into registers, or rows of Q into the warp's part of shared memory.
  __device__ __forceinline__ void load_q(const AttentionArgs& args, const LaneRows& rows,
                                         T* shared_q) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll Tile::kUnrolledKSteps
    for (int step = 0; step < Tile::kKSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = step * 16 + lane % 4 * 2 + i / 2 * 8;
        const uint32_t pair =
            load_q_pair<T, kHeadSize>(args, rows.row[i % 2], rows.head[i % 2], column);
        if constexpr (Tile::kSharedQ) {
          const int row = lane / 4 + i % 2 * 8;
          *reinterpret_cast<uint32_t*>(shared_q + row * Tile::kStride + column) = pair;
        } else {
          q[step][i] = pair;
        }
      }
    }
    if constexpr (Tile::kSharedQ) __syncwarp();
  }

  /// scores = Q K^T of one tile.
  __device__ __forceinline__ void multiply_keys(const T* shared_q, const T* k,
                                                float (&scores)[Tile::kKeyTiles][4]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const T* from = k + (lane / 16 * 8 + lane % 8) * Tile::kStride + lane / 8 % 2 * 8;
    const T* q_from = shared_q + lane % 16 * Tile::kStride + lane / 16 * 8;
#pragma unroll Tile::kUnrolledKSteps
    for (int step = 0; step < Tile::kKSteps; ++step) {
      uint32_t a[4];
      if constexpr (Tile::kSharedQ) {
        ldmatrix_x4(a, q_from + step * 16);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = q[step][i];
      }
#pragma unroll
      for (int tile = 0; tile < Tile::kKeyTiles; tile += 2) {
        uint32_t b[4];
        ldmatrix_x4(b, from + tile * 8 * Tile::kStride + step * 16);
        const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
        mma_m16n8k16<T>(scores[tile], a, first);
        mma_m16n8k16<T>(scores[tile + 1], a, second);
      }
    }
  }

  /// Turns scores into weights relative to the new maxima and rescales what was there. A row that
  /// has seen no key has the maximum -inf: its weights and its scale are 2^-inf = 0.
  __device__ __forceinline__ void weigh(float scale_log2, float (&scores)[Tile::kKeyTiles][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = max_score[i];
#pragma unroll
      for (int tile = 0; tile < Tile::kKeyTiles; ++tile) {
        top = fmaxf(top, fmaxf(scores[tile][2 * i], scores[tile][2 * i + 1]));
      }
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      const float origin = top == negative_infinity() ? 0.0f : top * scale_log2;
      const float rescale = ex2_approx(max_score[i] * scale_log2 - origin);
      max_score[i] = top;
      float added = 0;
#pragma unroll
      for (int tile = 0; tile < Tile::kKeyTiles; ++tile) {
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
          scores[tile][j] = ex2_approx(fmaf(scores[tile][j], scale_log2, -origin));
          added += scores[tile][j];
        }
      }
      sum[i] = fmaf(sum[i], rescale, added);
#pragma unroll
      for (int tile = 0; tile < Tile::kOutTiles; ++tile) {
        out[tile][2 * i] *= rescale;
        out[tile][2 * i + 1] *= rescale;
      }
    }
  }

  /// out += weights V of one tile.
  __device__ __forceinline__ void multiply_values(const float (&weights)[Tile::kKeyTiles][4],
                                                  const T* v) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const T* from = v + (lane / 8 % 2 * 8 + lane % 8) * Tile::kStride + lane / 16 * 8;
#pragma unroll
    for (int step = 0; step < Tile::kKeys / 16; ++step) {
      const uint32_t a[4] = {pack_pair<T>(weights[2 * step][0], weights[2 * step][1]),
                             pack_pair<T>(weights[2 * step][2], weights[2 * step][3]),
                             pack_pair<T>(weights[2 * step + 1][0], weights[2 * step + 1][1]),
                             pack_pair<T>(weights[2 * step + 1][2], weights[2 * step + 1][3])};
#pragma unroll
      for (int tile = 0; tile < Tile::kOutTiles; tile += 2) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, from + step * 16 * Tile::kStride + tile * 8);
        const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
        mma_m16n8k16<T>(out[tile], a, first);
        mma_m16n8k16<T>(out[tile + 1], a, second);
      }
    }
  }

  /// The finished rows, or their part of this split. A part without any key is its lse -inf alone.
  __device__ __forceinline__ void store(const AttentionArgs& args, const LaneRows& rows,
                                        float scale_log2) {
    const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float total = sum[i] + __shfl_xor_sync(kAllLanes, sum[i], 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      if (!rows.valid[i]) continue;
      const float factor = total == 0 ? 0.0f : 1.0f / total;
      int64_t index = rows.row[i] * args.num_query_heads + rows.head[i];
      if (args.num_splits > 1) {
        index = index * args.num_splits + blockIdx.y;
        const float lse =
            total == 0 ? negative_infinity() : max_score[i] * scale_log2 + log2f(total);
        if (column == 0) args.partial_lse[index] = lse;
        if (total == 0) continue;
      }
      const DType dtype = args.num_splits > 1 ? DType::kFloat32 : args.out_dtype;
      void* to = args.num_splits > 1 ? args.partial_out : args.out;
#pragma unroll
      for (int tile = 0; tile < Tile::kOutTiles; ++tile) {
        const float x = out[tile][2 * i] * factor, y = out[tile][2 * i + 1] * factor;
        const int64_t offset = index * kHeadSize + tile * 8 + column;
        if (dtype == DType::kFloat32) {
          *reinterpret_cast<float2*>(static_cast<float*>(to) + offset) = make_float2(x, y);
        } else {
          *reinterpret_cast<uint32_t*>(static_cast<T*>(to) + offset) = pack_pair<T>(x, y);
        }
      }
    }
  }
};

/// Hides the keys of a tile that a row does not see.
template <int kKeyTiles>
__device__ __forceinline__ void mask_scores(const AttentionArgs& args, const AttentionBlock& block,
                                            const LaneRows& rows, int first_key,
                                            float (&scores)[kKeyTiles][4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint64_t visible =
        visible_keys(args.rows, rows.row[i], block.length, args.sliding_window, first_key) >>
        (threadIdx.x % 4 * 2);
#pragma unroll
    for (int tile = 0; tile < kKeyTiles; ++tile) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if ((visible >> (tile * 8 + j) & 1) == 0) scores[tile][2 * i + j] = negative_infinity();
      }
    }
  }
}

// ---- kernels ----------------------------------------------------------------------------------

// Grid (row tiles, splits, B' * G), 32 * warps threads. A block owns 16 * warps packed rows (node
// major: row = node * group + query head within the group) of one sequence and KV head, and one
// split of the keys; a warp owns 16 of the rows and all keys of the split. K and V come through
// shared memory by tiles, the next tile being copied while one is used. Tiles within the prefix
// need no mask; those that touch the tree's rows, or the window's start, are masked bit by bit.
template <typename T, int kHeadSize>
__global__ void __launch_bounds__(TileSizes<kHeadSize>::kMaxWarps* kWarp)
    tree_attention_kernel(AttentionArgs args) {
  using Tile = TileSizes<kHeadSize>;
  AttentionBlock block;
  if (!find_block<kHeadSize>(args, block)) return;
  const LaneRows rows = lane_rows(args, block);
  T* shared = reinterpret_cast<T*>(dynamic_shared);
  T* shared_q = shared + Tile::kStages * 2 * Tile::kTileElements +
                static_cast<int>(threadIdx.x) / kWarp * Tile::kRows * Tile::kStride;
  const int64_t slot =
      args.rows.cache_slots[static_cast<int>(blockIdx.z) / args.cache.num_kv_heads];
  const float scale_log2 = args.scale * kLog2E;

  WarpAttention<T, kHeadSize> warp;
  if (block.first_tile < block.end_tile) {
    copy_tile<T, kHeadSize>(args.cache, slot, block, block.first_tile, shared);
    warp.load_q(args, rows, shared_q);
  }
  warp.start();
#pragma unroll 1
  for (int tile = block.first_tile; tile < block.end_tile; ++tile) {
    const T* here = shared + (tile - block.first_tile) % 2 * 2 * Tile::kTileElements;
    if (tile + 1 < block.end_tile) {
      copy_tile<T, kHeadSize>(args.cache, slot, block, tile + 1,
                              shared + (tile + 1 - block.first_tile) % 2 * 2 * Tile::kTileElements);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    const int first_key = tile * Tile::kKeys;
    float scores[Tile::kKeyTiles][4] = {};
    warp.multiply_keys(shared_q, here, scores);
    if (first_key + Tile::kKeys > block.length || first_key < block.first_full_key) {
      mask_scores(args, block, rows, first_key, scores);
    }
    warp.weigh(scale_log2, scores);
    warp.multiply_values(scores, here + Tile::kTileElements);
    __syncthreads();  // the next round overwrites this tile
  }
  warp.store(args, rows, scale_log2);
}

// ---- launchers --------------------------------------------------------------------------------

template <typename T, int kHeadSize>
cudaError_t launch_tree_attention(cudaStream_t stream, const AttentionGrid& grid,
                                  const AttentionArgs& args) {
  const dim3 blocks(grid.num_row_tiles, args.num_splits,
                    args.rows.num_sequences * args.cache.num_kv_heads);
  return launch(tree_attention_kernel<T, kHeadSize>, blocks, dim3(grid.num_warps * kWarp),
                TileSizes<kHeadSize>::shared_bytes(grid.num_warps), stream, args);
}

}  // namespace medusa::cuda
