// Per-head top-k over the vocabulary, then the gather into node tokens: two launches, the logits
// read once.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/workspace.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kChunk = 4096;  // logits of a block
constexpr int kMaxTopK = kWarp;
constexpr int kMergeWarps = 8;

struct CandidatesArgs {
  CandidatesParams params;
  int32_t num_chunks;
  uint64_t* keys;  // [B, K, chunks, k], best first
  float2* sums;    // [B, K, chunks], {max, sum of e^(x - max)}
};

// ---- kernels ----------------------------------------------------------------------------------

// The 32 best keys a warp has seen, lane i holding the i-th best; only the first k matter.
struct WarpTopK {
  uint64_t key;    // of this lane
  uint64_t bound;  // the k-th best: what does not exceed it is no candidate
  int top_k;

  __device__ __forceinline__ explicit WarpTopK(int k) : key(0), bound(0), top_k(k) {}

  // Offers one key per lane (0: none). Every lane of the warp takes part.
  __device__ __forceinline__ void offer(uint64_t candidate, int lane) {
    unsigned pending = __ballot_sync(kAllLanes, candidate > bound);
    while (pending != 0) {
      const int source = __ffs(static_cast<int>(pending)) - 1;
      const uint64_t best = __shfl_sync(kAllLanes, candidate, source);
      const int rank = __popc(__ballot_sync(kAllLanes, key > best));
      const uint64_t shifted = __shfl_up_sync(kAllLanes, key, 1);
      if (lane == rank) {
        key = best;
      } else if (lane > rank) {
        key = shifted;
      }
      bound = __shfl_sync(kAllLanes, key, top_k - 1);
      pending &= pending - 1;
      pending &= __ballot_sync(kAllLanes, candidate > bound);
    }
  }
};

// {max, sum} of two disjoint sets; the empty set is {-inf, 0}.
__device__ __forceinline__ float2 merge_sums(float2 a, float2 b) {
  const float max = fmaxf(a.x, b.x);
  const float scale_a = a.x == max ? 1.0f : expf(a.x - max);
  const float scale_b = b.x == max ? 1.0f : expf(b.x - max);
  return make_float2(max, a.y * scale_a + b.y * scale_b);
}

__device__ __forceinline__ float2 warp_merge_sums(float2 value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const float2 other = make_float2(__shfl_xor_sync(kAllLanes, value.x, offset),
                                     __shfl_xor_sync(kAllLanes, value.y, offset));
    value = merge_sums(value, other);
  }
  return value;
}

template <int kCount>
__device__ __forceinline__ void add_to_sum(float2& sum, const float (&x)[kCount]) {
  float max = sum.x;
#pragma unroll
  for (int i = 0; i < kCount; ++i) max = fmaxf(max, x[i]);
  if (max > sum.x) {
    sum.y *= expf(sum.x - max);
    sum.x = max;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (x[i] > negative_infinity()) sum.y += expf(x[i] - max);
  }
}

// Grid (chunks, K, B). A block owns kChunk logits of one head; its warps keep a top-k list each,
// which the first warp merges.
template <typename T>
__global__ void __launch_bounds__(kThreads) chunk_top_k_kernel(CandidatesArgs args) {
  __shared__ uint64_t lists[kWarps][kMaxTopK];
  __shared__ float2 sums[kWarps];
  const CandidatesParams& params = args.params;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t head = int64_t{blockIdx.z} * params.num_heads + blockIdx.y;
  const T* logits = static_cast<const T*>(params.logits) + head * params.width;
  const int64_t begin = int64_t{blockIdx.x} * kChunk;
  const int64_t end = min(begin + kChunk, params.width);
  const bool wants_sum = params.top_log_probs != nullptr;

  WarpTopK best(params.top_k);
  float2 sum = make_float2(negative_infinity(), 0.0f);
  visit_row(logits, begin, end, static_cast<int>(threadIdx.x), kThreads,
            [&](int64_t first, float (&values)[16 / sizeof(T)]) {
              constexpr int kCount = 16 / sizeof(T);
#pragma unroll
              for (int i = 0; i < kCount; ++i) {
                const int64_t id = first + i;
                const bool inside = id >= begin && id < end;
                if (!inside) values[i] = negative_infinity();
                best.offer(inside ? value_id_key(values[i], id) : 0, lane);
              }
              if (wants_sum) add_to_sum(sum, values);
            });
  lists[warp][lane] = best.key;
  sum = warp_merge_sums(sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (warp != 0) return;
  for (int other = 1; other < kWarps; ++other) {
    best.offer(lists[other][lane], lane);
    sum = merge_sums(sum, sums[other]);
  }
  const int64_t index = head * args.num_chunks + blockIdx.x;
  if (lane < params.top_k) args.keys[index * params.top_k + lane] = best.key;
  if (lane == 0) args.sums[index] = sum;
}

// Merges the lists of a head's chunks and writes its ids and log-probabilities. Ids that do not
// exist (k > V) are -1.
__device__ __forceinline__ void merge_head(const CandidatesArgs& args, int64_t head, int lane) {
  const CandidatesParams& params = args.params;
  const uint64_t* keys = args.keys + head * args.num_chunks * params.top_k;
  const int count = args.num_chunks * params.top_k;
  WarpTopK best(params.top_k);
  for (int base = 0; base < count; base += kWarp) {
    best.offer(base + lane < count ? keys[base + lane] : 0, lane);
  }
  float2 sum = make_float2(negative_infinity(), 0.0f);
  for (int i = lane; i < args.num_chunks; i += kWarp) {
    sum = merge_sums(sum, args.sums[head * args.num_chunks + i]);
  }
  sum = warp_merge_sums(sum);
  if (lane >= params.top_k) return;
  const int32_t id = key_id(best.key);
  const int64_t out = head * params.top_k + lane;
  params.top_ids[out] = id >= 0 && params.token_map != nullptr ? params.token_map[id] : id;
  if (params.top_log_probs != nullptr) {
    params.top_log_probs[out] =
        id >= 0 ? key_value(best.key) - sum.x - logf(sum.y) : negative_infinity();
  }
}

// Grid (B). A block owns a sequence: its warps merge one head each, then its threads gather node
// tokens from what the block has just written.
__global__ void __launch_bounds__(kMergeWarps* kWarp) merge_and_gather_kernel(CandidatesArgs args) {
  const CandidatesParams& params = args.params;
  const int64_t b = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int k = static_cast<int>(threadIdx.x) / kWarp; k < params.num_heads; k += kMergeWarps) {
    merge_head(args, b * params.num_heads + k, lane);
  }
  __syncthreads();
  const int32_t* top_ids = params.top_ids + b * params.num_heads * params.top_k;
  for (int n = static_cast<int>(threadIdx.x); n < params.num_nodes; n += kMergeWarps * kWarp) {
    const int depth = params.depths[n];
    params.tokens[b * params.num_nodes + n] =
        depth == 0 ? params.roots[b] : top_ids[(depth - 1) * params.top_k + params.ranks[n]];
  }
}

int64_t num_lists(const CandidatesParams& params) {
  return int64_t{params.num_sequences} * params.num_heads * ((params.width + kChunk - 1) / kChunk);
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

int64_t workspace_bytes(const CandidatesParams& params) {
  return aligned_bytes(num_lists(params) * params.top_k * int64_t{sizeof(uint64_t)}) +
         aligned_bytes(num_lists(params) * int64_t{sizeof(float2)});
}

cudaError_t candidates(const CudaContext& context, const CandidatesParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  if (params.top_k < 1 || params.top_k > kMaxTopK) return cudaErrorInvalidValue;
  if (workspace_bytes(params) > context.workspace_bytes) return cudaErrorMemoryAllocation;
  Workspace workspace(context.workspace);
  CandidatesArgs args;
  args.params = params;
  args.num_chunks = static_cast<int32_t>((params.width + kChunk - 1) / kChunk);
  args.keys = workspace.take<uint64_t>(num_lists(params) * params.top_k);
  args.sums = workspace.take<float2>(num_lists(params));
  if (params.num_heads > 0) {
    const dim3 grid(args.num_chunks, params.num_heads, params.num_sequences);
    const cudaError_t status = dispatch_float(params.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return launch(chunk_top_k_kernel<T>, grid, dim3(kThreads), 0, context.stream, args);
    });
    if (status != cudaSuccess) return status;
  }
  return launch(merge_and_gather_kernel, dim3(params.num_sequences), dim3(kMergeWarps * kWarp), 0,
                context.stream, args);
}

}  // namespace medusa::cuda
