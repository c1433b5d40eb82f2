// The launcher of tree attention, the merge of its splits, and a plain float32 kernel for checking.
#include <algorithm>

#include "cuda/attention/tree_attention.h"
#include "cuda/attention/visible_keys.cuh"
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/ptx.cuh"
#include "cuda/runtime/workspace.h"

namespace medusa::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxHeadSize = 256;
constexpr int kValuesPerLane = kMaxHeadSize / kWarp;
constexpr int kMaxFixedRows = 256;  // a prompt's chunk has blocks enough without splits

// ---- kernels ----------------------------------------------------------------------------------

// Grid (ceil(R * Q / warps)). A warp owns the output of one row and query head: lane s weighs split
// s by 2^(lse - the merged lse), then all lanes add up four columns each. Splits without keys have
// lse -inf, weight 0, and are not read. Rows after the last sequence's are padding.
__global__ void __launch_bounds__(kWarps* kWarp) merge_splits_kernel(AttentionArgs args) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t index = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  const int row = static_cast<int>(index / args.num_query_heads);
  if (row >= args.rows.first_rows[args.rows.num_sequences]) return;

  const float lse = lane < args.num_splits ? args.partial_lse[index * args.num_splits + lane]
                                           : negative_infinity();
  float weight = ex2_approx(lse - warp_max(lse));
  weight /= warp_sum(weight);
  const int head_size = args.cache.head_size;
  const float* parts = args.partial_out + index * args.num_splits * head_size;
  for (int first = lane * 4; first < (head_size + 127) / 128 * 128; first += 128) {
    float sum[4] = {};
    for (int split = 0; split < args.num_splits; ++split) {
      const float share = __shfl_sync(kAllLanes, weight, split);
      if (share == 0 || first >= head_size) continue;
      const float4 part = *reinterpret_cast<const float4*>(parts + split * head_size + first);
      sum[0] = fmaf(share, part.x, sum[0]);
      sum[1] = fmaf(share, part.y, sum[1]);
      sum[2] = fmaf(share, part.z, sum[2]);
      sum[3] = fmaf(share, part.w, sum[3]);
    }
    if (first >= head_size) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      store_from_float(args.out, args.out_dtype, index * head_size + first + i, sum[i]);
    }
  }
}

// Grid (ceil(R * Q / warps)), for a float32 cache. A warp owns one row and query head and walks
// over its keys 32 at a time: a lane scores one key, then adds up the values of its columns.
__global__ void __launch_bounds__(kWarps* kWarp) float_attention_kernel(AttentionArgs args) {
  __shared__ float weights[kWarps][kWarp];
  const RowTable& rows = args.rows;
  const KvCache& cache = args.cache;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float* weight = weights[threadIdx.x / kWarp];
  const int64_t index = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  const int row = static_cast<int>(index / args.num_query_heads);
  if (row >= rows.first_rows[rows.num_sequences]) return;

  const int head = static_cast<int>(index % args.num_query_heads);
  const int sequence = rows.sequences[row], length = rows.lengths[sequence];
  const int slot = rows.cache_slots[sequence], kv_head = head / args.group;
  const float* k = static_cast<const float*>(cache.k);
  const float* v = static_cast<const float*>(cache.v);
  const float* q =
      static_cast<const float*>(args.q) + row * args.q_row_stride + head * cache.head_size;
  const int end_key = length + rows.nodes[row] + 1;
  const int window_start =
      args.sliding_window > 0 ? rows.positions[row] - args.sliding_window + 1 : 0;

  float out[kValuesPerLane] = {};
  float max_score = negative_infinity(), sum = 0;
  for (int first = max(min(window_start, length), 0); first < end_key; first += kWarp) {
    const uint64_t visible = visible_keys(rows, row, length, args.sliding_window, first);
    const bool sees = first + lane < end_key && (visible >> lane & 1) != 0;
    float score = negative_infinity();
    if (sees) {
      score = 0;
      const float* key = k + cache.row_offset(slot, kv_head, first + lane);
      for (int i = 0; i < cache.head_size; ++i) score = fmaf(q[i], key[i], score);
      score *= args.scale;
    }
    const float top = fmaxf(max_score, warp_max(score));
    const float origin = top == negative_infinity() ? 0.0f : top;
    const float rescale = expf(max_score - origin);
    const float own = expf(score - origin);
    max_score = top;
    sum = fmaf(sum, rescale, own);
    __syncwarp();
    weight[lane] = own;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kValuesPerLane; ++i) {
      const int column = lane + i * kWarp;
      if (column >= cache.head_size) continue;
      out[i] *= rescale;
#pragma unroll 1  // more keys at once would not fit the registers
      for (int j = 0; j < min(kWarp, end_key - first); ++j) {
        if (weight[j] == 0) continue;
        const float* value = v + cache.row_offset(slot, kv_head, first + j);
        out[i] = fmaf(weight[j], value[column], out[i]);
      }
    }
  }
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < kValuesPerLane; ++i) {
    const int column = lane + i * kWarp;
    if (column >= cache.head_size) continue;
    store_from_float(args.out, args.out_dtype, index * cache.head_size + column, out[i] / sum);
  }
}

// ---- the shape of a launch --------------------------------------------------------------------

int ceil_divide(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

// 16 packed rows to a warp: as many warps as an average sequence fills, as many tiles as all rows
// would fill if they were of one sequence. A tile without rows ends at once.
AttentionGrid attention_grid(const TreeAttentionParams& params) {
  const int64_t packed =
      int64_t{params.rows.num_rows} * params.num_query_heads / params.cache.num_kv_heads;
  const int max_warps = params.cache.head_size <= 128 ? 8 : 4;
  AttentionGrid grid;
  grid.num_warps =
      std::min(max_warps, ceil_divide(packed, int64_t{16} * params.rows.num_sequences));
  grid.num_row_tiles = ceil_divide(packed, 16 * grid.num_warps);
  return grid;
}

int64_t partial_bytes(const TreeAttentionParams& params, int num_splits) {
  const int64_t rows = int64_t{params.rows.num_rows} * params.num_query_heads * num_splits;
  return aligned_bytes(rows * 4) + aligned_bytes(rows * params.cache.head_size * 4);
}

// As many splits as fill the device, if no sequence were longer than the cache; deterministic: as
// many as its rows need at boundaries that nothing but the cache's size moves.
int wanted_splits(const TreeAttentionParams& params, int num_multiprocessors) {
  const AttentionGrid grid = attention_grid(params);
  const int64_t blocks =
      int64_t{params.cache.num_kv_heads} * std::max(grid.num_row_tiles, params.rows.num_sequences);
  const int64_t resident = int64_t{num_multiprocessors} * std::min(4, 8 / grid.num_warps);
  const int64_t useful = ceil_divide(params.cache.num_rows, kMinSplitKeys);
  return static_cast<int>(
      std::max<int64_t>(1, std::min<int64_t>({kMaxSplits, resident / blocks, useful})));
}

int fixed_split_keys(const TreeAttentionParams& params) {
  const int share = ceil_divide(params.cache.num_rows, kMaxSplits);
  return std::max(kFixedSplitKeys, ceil_divide(share, kFixedSplitKeys) * kFixedSplitKeys);
}

int fixed_splits(const TreeAttentionParams& params) {
  if (params.rows.num_rows > kMaxFixedRows) return 1;
  return std::max(1, ceil_divide(params.cache.num_rows, fixed_split_keys(params)));
}

cudaError_t choose_splits(const CudaContext& context, const TreeAttentionParams& params,
                          AttentionArgs& args) {
  if (context.deterministic) {
    args.split_keys = fixed_split_keys(params);
    args.num_splits = fixed_splits(params);
    if (args.num_splits > 1 && partial_bytes(params, args.num_splits) > context.workspace_bytes) {
      return cudaErrorMemoryAllocation;
    }
  } else {
    args.num_splits = wanted_splits(params, context.num_multiprocessors);
    while (args.num_splits > 1 &&
           partial_bytes(params, args.num_splits) > context.workspace_bytes) {
      --args.num_splits;
    }
  }
  if (args.num_splits > 1) {
    Workspace workspace(context.workspace);
    const int64_t rows = int64_t{params.rows.num_rows} * params.num_query_heads * args.num_splits;
    args.partial_lse = workspace.take<float>(rows);
    args.partial_out = workspace.take<float>(rows * params.cache.head_size);
  }
  return cudaSuccess;
}

AttentionArgs attention_args(const TreeAttentionParams& params) {
  AttentionArgs args = {};
  args.rows = params.rows;
  args.cache = params.cache;
  args.num_query_heads = params.num_query_heads;
  args.group = params.num_query_heads / params.cache.num_kv_heads;
  args.sliding_window = params.sliding_window;
  args.scale = params.scale;
  args.q_dtype = params.q_dtype;
  args.q = params.q;
  args.q_row_stride = params.q_row_stride;
  const bool to_activations = params.out_activations.data != nullptr;
  args.out_dtype = to_activations ? params.out_activations.format.type : params.q_dtype;
  args.out = to_activations ? params.out_activations.data : params.out;
  args.num_splits = 1;
  return args;
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

int64_t workspace_bytes(const TreeAttentionParams& params, int32_t num_multiprocessors) {
  const int splits = std::max(fixed_splits(params), wanted_splits(params, num_multiprocessors));
  return splits > 1 ? partial_bytes(params, splits) : 0;
}

cudaError_t tree_attention(const CudaContext& context, const TreeAttentionParams& params) {
  if (params.rows.num_rows == 0 || params.rows.num_sequences == 0) return cudaSuccess;
  AttentionArgs args = attention_args(params);
  const int64_t outputs = int64_t{params.rows.num_rows} * params.num_query_heads;
  const dim3 output_grid(ceil_divide(outputs, kWarps));
  if (params.cache.dtype == DType::kFloat32) {
    if (params.q_dtype != DType::kFloat32 || params.cache.head_size > kMaxHeadSize) {
      return cudaErrorInvalidValue;
    }
    return launch(float_attention_kernel, output_grid, dim3(kWarps * kWarp), 0, context.stream,
                  args);
  }
  for (const DType dtype : {args.q_dtype, args.out_dtype}) {
    if (dtype != DType::kFloat32 && dtype != params.cache.dtype) return cudaErrorInvalidValue;
  }
  cudaError_t status = choose_splits(context, params, args);
  if (status != cudaSuccess) return status;
  status = dispatch_half(params.cache.dtype, [&](auto tag) {
    return dispatch_head_size(params.cache.head_size, [&](auto head_size) {
      return launch_tree_attention<typename decltype(tag)::type, decltype(head_size)::value>(
          context.stream, attention_grid(params), args);
    });
  });
  if (status != cudaSuccess || args.num_splits == 1) return status;
  return launch(merge_splits_kernel, output_grid, dim3(kWarps * kWarp), 0, context.stream, args);
}

}  // namespace medusa::cuda
