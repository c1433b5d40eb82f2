#include "core/noise.h"
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/launch.cuh"
#include "cuda/sampling/row_reduction.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kChunk = 8192;  // logits of a block

// What is known of a set of logits. `key` holds the best value and its id; the other three are the
// sums of a softmax relative to `max`: of e^(z - max) and of z e^(z - max). Empty: max = -inf.
struct Partial {
  uint64_t key;
  float max;
  float sum;
  float weighted;
};

int num_chunks(int64_t width) { return static_cast<int>((width + kChunk - 1) / kChunk); }

// ---- kernels ----------------------------------------------------------------------------------

__device__ __forceinline__ Partial empty_partial() { return {0, negative_infinity(), 0, 0}; }

// Sums over disjoint sets, moved to the greater of the two maxima. exp(-inf - max) is 0; two empty
// sets give an empty one.
template <RowReduction kKind>
__device__ __forceinline__ Partial merge(const Partial& a, const Partial& b) {
  Partial out = a;
  out.key = max_key(a.key, b.key);
  if constexpr (kKind == RowReduction::kEntropy) {
    out.max = fmaxf(a.max, b.max);
    const float scale_a = a.max == out.max ? 1.0f : expf(a.max - out.max);
    const float scale_b = b.max == out.max ? 1.0f : expf(b.max - out.max);
    out.sum = a.sum * scale_a + b.sum * scale_b;
    out.weighted = a.weighted * scale_a + b.weighted * scale_b;
  }
  return out;
}

template <RowReduction kKind>
__device__ __forceinline__ Partial shuffle_xor(const Partial& value, int offset) {
  Partial out = value;
  out.key = __shfl_xor_sync(kAllLanes, value.key, offset);
  if constexpr (kKind == RowReduction::kEntropy) {
    out.max = __shfl_xor_sync(kAllLanes, value.max, offset);
    out.sum = __shfl_xor_sync(kAllLanes, value.sum, offset);
    out.weighted = __shfl_xor_sync(kAllLanes, value.weighted, offset);
  }
  return out;
}

template <RowReduction kKind>
__device__ __forceinline__ Partial warp_merge(Partial value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = merge<kKind>(value, shuffle_xor<kKind>(value, offset));
  }
  return value;
}

// Adds z = logit / temperature of `kCount` ids; -inf and NaN add nothing to the sums.
template <int kCount>
__device__ __forceinline__ void add_to_softmax(Partial& partial, const float (&z)[kCount]) {
  float max = partial.max;
#pragma unroll
  for (int i = 0; i < kCount; ++i) max = fmaxf(max, z[i]);
  if (max > partial.max) {
    const float scale = expf(partial.max - max);
    partial.max = max;
    partial.sum *= scale;
    partial.weighted *= scale;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (!(z[i] > negative_infinity())) continue;
    const float mass = expf(z[i] - max);
    partial.sum += mass;
    partial.weighted += z[i] * mass;
  }
}

// Grid (chunks, rows). A block owns kChunk logits of a row and leaves one partial.
template <typename T, RowReduction kKind>
__global__ void __launch_bounds__(kThreads) reduce_chunk_kernel(RowReductionParams params) {
  __shared__ Partial shared[kWarps];
  const LogitRows& rows = params.rows;
  const int64_t row = blockIdx.y;
  const int64_t source = rows.row_index != nullptr ? rows.row_index[row] : row;
  if (source < 0) return;
  const T* logits = static_cast<const T*>(rows.logits) + source * rows.row_stride;
  float temperature = 0;
  if constexpr (kKind != RowReduction::kArgmax) {
    temperature = params.rules[row / params.rows_per_rule].temperature;
  }
  const int64_t begin = int64_t{blockIdx.x} * kChunk;
  const int64_t end = min(begin + kChunk, rows.width);
  uint64_t noise = 0;
  float threshold = negative_infinity();
  if constexpr (kKind == RowReduction::kGumbel) {
    noise = noise_key(params.seeds[row], params.positions[row]);
    if (params.thresholds != nullptr) threshold = params.thresholds[row];
  }

  Partial partial = empty_partial();
  visit_row(logits, begin, end, static_cast<int>(threadIdx.x), kThreads,
            [&](int64_t first, float (&values)[16 / sizeof(T)]) {
              constexpr int kCount = 16 / sizeof(T);
              float z[kCount];
#pragma unroll
              for (int i = 0; i < kCount; ++i) {
                const int64_t id = first + i;
                const bool inside = id >= begin && id < end;
                z[i] = inside ? values[i] : negative_infinity();
                if constexpr (kKind == RowReduction::kEntropy) {
                  if (temperature > 0) z[i] /= temperature;
                }
                if (!inside) continue;
                float value = values[i];
                if constexpr (kKind == RowReduction::kGumbel) {
                  if (temperature > 0) {
                    if (value < threshold) continue;
                    value =
                        value / temperature + gumbel(noise_bits(noise, static_cast<int32_t>(id)));
                  }
                }
                partial.key = max_key(partial.key, value_id_key(value, id));
              }
              if constexpr (kKind == RowReduction::kEntropy) add_to_softmax(partial, z);
            });

  partial = warp_merge<kKind>(partial);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = partial;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kWarps; ++warp) partial = merge<kKind>(partial, shared[warp]);
  static_cast<Partial*>(params.partials)[row * gridDim.x + blockIdx.x] = partial;
}

// Grid (rows), one warp each: merges the partials of a row's chunks.
template <RowReduction kKind>
__global__ void __launch_bounds__(kWarp)
    merge_chunks_kernel(RowReductionParams params, int chunks) {
  const int64_t row = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  if (params.rows.row_index != nullptr && params.rows.row_index[row] < 0) return;
  const Partial* partials = static_cast<const Partial*>(params.partials) + row * chunks;
  Partial partial = empty_partial();
  for (int i = lane; i < chunks; i += kWarp) partial = merge<kKind>(partial, partials[i]);
  partial = warp_merge<kKind>(partial);
  if (lane != 0) return;
  // NaN's key and that of an empty set are smaller than any number's; both read as NaN.
  const bool is_finite = fabsf(key_value(partial.key)) < -negative_infinity();
  if (params.out != nullptr) params.out[row] = is_finite ? key_id(partial.key) : -1;
  if constexpr (kKind == RowReduction::kArgmax) {
    if (params.max_value != nullptr) params.max_value[row] = key_value(partial.key);
  }
  if constexpr (kKind == RowReduction::kEntropy) {
    const float log_sum_exp = partial.max + logf(partial.sum);
    params.log_sum_exp[row] = log_sum_exp;
    params.entropy[row] = log_sum_exp - partial.weighted / partial.sum;
  }
}

template <RowReduction kKind>
cudaError_t reduce_as(const CudaContext& context, const RowReductionParams& params) {
  const LogitRows& rows = params.rows;
  const int chunks = num_chunks(rows.width);
  const cudaError_t status = dispatch_float(rows.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return launch(reduce_chunk_kernel<T, kKind>, dim3(chunks, rows.num_rows), dim3(kThreads), 0,
                  context.stream, params);
  });
  if (status != cudaSuccess) return status;
  return launch(merge_chunks_kernel<kKind>, dim3(rows.num_rows), dim3(kWarp), 0, context.stream,
                params, chunks);
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

int64_t row_reduction_bytes(int32_t num_rows, int64_t width) {
  return int64_t{num_rows} * num_chunks(width) * static_cast<int64_t>(sizeof(Partial));
}

cudaError_t reduce_rows(const CudaContext& context, RowReduction kind,
                        const RowReductionParams& params) {
  if (params.rows.num_rows == 0) return cudaSuccess;
  switch (kind) {
    case RowReduction::kArgmax:
      return reduce_as<RowReduction::kArgmax>(context, params);
    case RowReduction::kGumbel:
      return reduce_as<RowReduction::kGumbel>(context, params);
    case RowReduction::kEntropy:
      return reduce_as<RowReduction::kEntropy>(context, params);
  }
  return cudaErrorInvalidValue;
}

}  // namespace medusa::cuda
