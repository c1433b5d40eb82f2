// Per-head RMSNorm where the family has it, rotary embedding of Q and K, and the append of K and V
// to the cache, in one launch.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;

// ---- kernels ----------------------------------------------------------------------------------

// 1 / rms of a head, or 1 without `weight`.
__device__ __forceinline__ float head_scale(const float* head, const float* weight, int head_size,
                                            float epsilon, int lane) {
  if (weight == nullptr) return 1.0f;
  float squares = 0;
  for (int i = lane; i < head_size; i += kWarp) squares += head[i] * head[i];
  return rsqrtf(warp_sum(squares) / static_cast<float>(head_size) + epsilon);
}

// Normalises and rotates one head in the half-split layout: element i pairs with i + D/2. Each lane
// reads its pairs before it writes them, so `out` may be `head`.
template <typename Out>
__device__ __forceinline__ void rotate_head(const RopeAppendParams& params, const float* head,
                                            const float* weight, int64_t position, int lane,
                                            Out* out) {
  const int head_size = params.cache.head_size, half = head_size / 2;
  const float scale = head_scale(head, weight, head_size, params.epsilon, lane);
  const float* cos = params.cos_sin + position * head_size;
  const float* sin = cos + half;
  for (int i = lane; i < half; i += kWarp) {
    float a = head[i] * scale, b = head[i + half] * scale;
    if (weight != nullptr) {
      a *= weight[i];
      b *= weight[i + half];
    }
    out[i] = round_to<Out>(a * cos[i] - b * sin[i]);
    out[i + half] = round_to<Out>(b * cos[i] + a * sin[i]);
  }
}

// Grid (R, ceil((Q + 2G) / warps)). A warp owns one head of one row: of Q it rotates, of K it
// rotates into the cache, of V it copies into the cache. Rows after the last sequence's are
// padding and skipped.
template <typename T>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarp)
    rope_append_kernel(RopeAppendParams params) {
  const RowTable& rows = params.rows;
  const KvCache& cache = params.cache;
  const int64_t row = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int index = static_cast<int>(blockIdx.y * kWarpsPerBlock + threadIdx.x / kWarp);
  const int q_heads = params.num_query_heads, kv_heads = cache.num_kv_heads;
  if (index >= q_heads + 2 * kv_heads || row >= rows.first_rows[rows.num_sequences]) return;

  const int head_size = cache.head_size;
  float* head = params.qkv + (row * (q_heads + 2 * kv_heads) + index) * head_size;
  const int64_t position = rows.positions[row];
  if (index < q_heads) {
    rotate_head(params, head, params.q_norm, position, lane, head);
    return;
  }
  const bool is_key = index < q_heads + kv_heads;
  const int kv_head = is_key ? index - q_heads : index - q_heads - kv_heads;
  const int sequence = rows.sequences[row];
  const int64_t cache_row = int64_t{rows.lengths[sequence]} + rows.nodes[row];
  T* out = static_cast<T*>(is_key ? cache.k : cache.v) +
           cache.row_offset(rows.cache_slots[sequence], kv_head, cache_row);
  if (is_key) {
    rotate_head(params, head, params.k_norm, position, lane, out);
  } else {
    for (int i = lane; i < head_size; i += kWarp) out[i] = round_to<T>(head[i]);
  }
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t rope_append(const CudaContext& context, const RopeAppendParams& params) {
  if (params.rows.num_rows == 0) return cudaSuccess;
  const int heads = params.num_query_heads + 2 * params.cache.num_kv_heads;
  const dim3 grid(params.rows.num_rows, (heads + kWarpsPerBlock - 1) / kWarpsPerBlock);
  return dispatch_float(params.cache.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return launch(rope_append_kernel<T>, grid, dim3(kWarpsPerBlock * kWarp), 0, context.stream,
                  params);
  });
}

}  // namespace medusa::cuda
