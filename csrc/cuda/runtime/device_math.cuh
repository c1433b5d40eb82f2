// Conversions, ordered keys, and reductions that several kernels share.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "core/dtype.h"

namespace medusa::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float negative_infinity() { return __uint_as_float(0xff800000u); }

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T round_to(float x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

/// Two floats as a register of two 16-bit values, `low` in the lower half.
template <typename T>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

/// Element `index` of an array whose type only the host knew at compile time.
__device__ __forceinline__ float load_as_float(const void* data, DType dtype, int64_t index) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(data)[index];
  if (dtype == DType::kFloat16) return to_float(static_cast<const __half*>(data)[index]);
  return to_float(static_cast<const __nv_bfloat16*>(data)[index]);
}

__device__ __forceinline__ void store_from_float(void* data, DType dtype, int64_t index, float x) {
  if (dtype == DType::kFloat32) {
    static_cast<float*>(data)[index] = x;
  } else if (dtype == DType::kFloat16) {
    static_cast<__half*>(data)[index] = round_to<__half>(x);
  } else {
    static_cast<__nv_bfloat16*>(data)[index] = round_to<__nv_bfloat16>(x);
  }
}

/// Maps floats to integers of the same order; -0 equals +0, and NaN is below every number.
__device__ __forceinline__ uint32_t ordered_bits(float x) {
  if (x != x) return 0;
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float from_ordered_bits(uint32_t ordered) {
  return __uint_as_float(ordered & 0x80000000u ? ordered ^ 0x80000000u : ~ordered);
}

/// A key whose maximum is the largest value, ties going to the lowest id. 0 is below every key.
__device__ __forceinline__ uint64_t value_id_key(float value, int64_t id) {
  return uint64_t{ordered_bits(value)} << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ int32_t key_id(uint64_t key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}
__device__ __forceinline__ float key_value(uint64_t key) {
  return from_ordered_bits(static_cast<uint32_t>(key >> 32));
}

__device__ __forceinline__ uint64_t max_key(uint64_t a, uint64_t b) { return a > b ? a : b; }

/// Combines a value of every lane; all lanes get the result, in an order that lanes do not change.
template <typename T, typename F>
__device__ __forceinline__ T warp_combine(T value, F&& combine) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

__device__ __forceinline__ float warp_sum(float value) {
  return warp_combine(value, [](float a, float b) { return a + b; });
}
__device__ __forceinline__ float warp_max(float value) {
  return warp_combine(value, [](float a, float b) { return fmaxf(a, b); });
}
__device__ __forceinline__ unsigned long long warp_max_key(unsigned long long value) {
  return warp_combine(value,
                      [](unsigned long long a, unsigned long long b) { return a > b ? a : b; });
}

/// Sum over the block, given to every thread; `scratch` holds a float per warp and may be reused
/// after the caller's next barrier.
__device__ __forceinline__ float block_sum(float value, float* scratch) {
  value = warp_sum(value);
  const int num_warps = static_cast<int>(blockDim.x) / kWarp;
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < num_warps; ++i) sum += scratch[i];
  return sum;
}

/// Elements first … first + 16 / sizeof(T) - 1 by one 16-byte load from an aligned address.
template <typename T>
__device__ __forceinline__ void load_16_bytes(const T* from, float (&out)[16 / sizeof(T)]) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = __uint_as_float(words[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (std::is_same_v<T, __half>) {
        out[2 * i] = __half2float(__ushort_as_half(static_cast<unsigned short>(words[i])));
        out[2 * i + 1] =
            __half2float(__ushort_as_half(static_cast<unsigned short>(words[i] >> 16)));
      } else {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
      }
    }
  }
}

/// Visits row[begin, end), `num_workers` workers in lockstep, 16 bytes each at a time wherever the
/// row is aligned: f(first id, values). Every worker makes the same number of calls, so that f may
/// hold collectives; the values of ids outside [begin, end) mean nothing.
template <typename T, typename F>
__device__ __forceinline__ void visit_row(const T* row, int64_t begin, int64_t end, int worker,
                                          int num_workers, F&& f) {
  constexpr int kCount = 16 / sizeof(T);
  const int64_t skew =
      static_cast<int64_t>(reinterpret_cast<uintptr_t>(row + begin) % 16 / sizeof(T));
  for (int64_t base = begin - skew; base < end; base += int64_t{num_workers} * kCount) {
    const int64_t first = base + int64_t{worker} * kCount;
    float values[kCount];
    if (first >= begin && first + kCount <= end) {
      load_16_bytes(row + first, values);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const int64_t id = first + i;
        values[i] = id >= begin && id < end ? to_float(row[id]) : 0.0f;
      }
    }
    f(first, values);
  }
}

}  // namespace medusa::cuda
