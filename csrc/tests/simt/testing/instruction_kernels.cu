#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/ptx.cuh"
#include "kernels.h"

namespace simt_testing {
namespace {

using namespace medusa::cuda;

template <typename T>
__global__ void __launch_bounds__(32) mma_kernel(const uint32_t* a, const uint32_t* b, float* d) {
  const int lane = threadIdx.x;
  uint32_t a_registers[4], b_registers[2];
  float d_registers[4];
  for (int i = 0; i < 4; ++i) a_registers[i] = a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) b_registers[i] = b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) d_registers[i] = d[lane * 4 + i];
  mma_m16n8k16<T>(d_registers, a_registers, b_registers);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = d_registers[i];
}

template <int Count, bool Trans>
__global__ void __launch_bounds__(32)
    ldmatrix_kernel(const uint16_t* matrices, uint32_t* registers) {
  __shared__ __align__(16) uint16_t shared[Count * 8][8];
  const int lane = threadIdx.x;
  for (int i = lane; i < Count * 64; i += 32) shared[i / 8][i % 8] = matrices[i];
  __syncwarp();
  uint32_t loaded[Count];
  // What the lanes without a row give is not read.
  ldmatrix<Count, Trans>(loaded, lane < Count * 8 ? shared[lane] : nullptr);
  for (int i = 0; i < Count; ++i) registers[lane * Count + i] = loaded[i];
}

__global__ void __launch_bounds__(32)
    warp_op_kernel(WarpOp op, uint32_t mask, int width, const uint32_t* values, const int* operands,
                   uint32_t* results) {
  const int lane = threadIdx.x;
  if ((mask >> lane & 1) == 0) return;
  const uint32_t value = values[lane];
  const int signed_value = static_cast<int>(value),
            operand = operands != nullptr ? operands[lane] : 0;
  uint32_t result = 0;
  switch (op) {
    case WarpOp::kShuffle:
      result = __shfl_sync(mask, value, operand, width);
      break;
    case WarpOp::kShuffleUp:
      result = __shfl_up_sync(mask, value, operand, width);
      break;
    case WarpOp::kShuffleDown:
      result = __shfl_down_sync(mask, value, operand, width);
      break;
    case WarpOp::kShuffleXor:
      result = __shfl_xor_sync(mask, value, operand, width);
      break;
    case WarpOp::kBallot:
      result = __ballot_sync(mask, signed_value);
      break;
    case WarpOp::kAny:
      result = __any_sync(mask, signed_value);
      break;
    case WarpOp::kAll:
      result = __all_sync(mask, signed_value);
      break;
    case WarpOp::kMatchAny:
      result = __match_any_sync(mask, value);
      break;
    case WarpOp::kAddSigned:
      result = __reduce_add_sync(mask, signed_value);
      break;
    case WarpOp::kMinSigned:
      result = __reduce_min_sync(mask, signed_value);
      break;
    case WarpOp::kMaxSigned:
      result = __reduce_max_sync(mask, signed_value);
      break;
    case WarpOp::kAdd:
      result = __reduce_add_sync(mask, value);
      break;
    case WarpOp::kMin:
      result = __reduce_min_sync(mask, value);
      break;
    case WarpOp::kMax:
      result = __reduce_max_sync(mask, value);
      break;
    case WarpOp::kAnd:
      result = __reduce_and_sync(mask, value);
      break;
    case WarpOp::kOr:
      result = __reduce_or_sync(mask, value);
      break;
    case WarpOp::kXor:
      result = __reduce_xor_sync(mask, value);
      break;
  }
  results[lane] = result;
}

__global__ void barrier_kernel(const int* predicates, int* results) {
  const int thread = threadIdx.x, predicate = predicates[thread];
  results[thread * 3] = __syncthreads_count(predicate);
  results[thread * 3 + 1] = __syncthreads_and(predicate);
  results[thread * 3 + 2] = __syncthreads_or(predicate);
}

__device__ void apply_atomics(int* words, int value) {
  atomicAdd(words, value);
  atomicSub(words + 1, value);
  atomicMin(words + 2, value);
  atomicMax(words + 3, value);
  atomicAnd(words + 4, value);
  atomicOr(words + 5, value);
  atomicXor(words + 6, value);
  atomicAdd(words + 7, atomicExch(words + 8, value));
  __syncthreads();
  if (value == 1) {
    words[7] += words[8];
    words[8] = 0;
  }
  __syncthreads();
  for (int old = 0, seen = 0;; old = seen) {
    seen = atomicCAS(words + 8, old, old + 1);
    if (seen == old) break;
  }
  atomicDec(reinterpret_cast<unsigned*>(words + 9), 65u);
  __threadfence();
}

__global__ void atomics_kernel(int* words) {
  __shared__ int shared[kNumAtomics];
  const int thread = threadIdx.x;
  if (thread < kNumAtomics) shared[thread] = words[kNumAtomics + thread];
  __syncthreads();
  apply_atomics(words, thread + 1);
  apply_atomics(shared, thread + 1);
  __syncthreads();
  if (thread < kNumAtomics) words[kNumAtomics + thread] = shared[thread];
}

__global__ void __launch_bounds__(32) async_kernel(const uint32_t* input, uint32_t* results) {
  auto* shared = reinterpret_cast<uint32_t*>(dynamic_shared);
  if (threadIdx.x != 0) return;
  for (int group = 0; group < 3; ++group) {
    cp_async_16(shared + group * 4, input + group * 4, group < 2);
    cp_async_commit();
  }
  // To read what is in flight is a race; here it shows when the copies land.
  cp_async_wait<2>();
  for (int i = 0; i < 12; ++i) results[i] = shared[i];
  cp_async_wait<1>();
  for (int i = 0; i < 12; ++i) results[12 + i] = shared[i];
  cp_async_wait<0>();
  for (int i = 0; i < 12; ++i) results[24 + i] = shared[i];
}

__global__ void half_kernel(const float* x, const float* y, HalfResults* results, int length) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= length) return;
  const __half a = __float2half(x[i]), b = __float2half_rn(y[i]);
  const __half2 pair = __floats2half2_rn(x[i], y[i]);
  HalfResults result;
  result.x = __half_as_ushort(a);
  result.sum = __half_as_ushort(__hadd(a, b));
  result.difference = __half_as_ushort(__hsub(a, b));
  result.product = __half_as_ushort(a * b);
  result.quotient = __half_as_ushort(a / b);
  result.low = __half_as_ushort(__low2half(pair));
  result.high = __half_as_ushort(__high2half(pair));
  result.largest = __half_as_ushort(__hmax(a, b));
  result.x_again = __half2float(__ushort_as_half(result.x));
  result.pair_y = __half22float2(__float22half2_rn(make_float2(x[i], y[i]))).y;
  result.less = a < b;
  results[i] = result;
}

__global__ void bfloat16_kernel(const float* x, const float* y, HalfResults* results, int length) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= length) return;
  const __nv_bfloat16 a = __float2bfloat16(x[i]), b = __float2bfloat16_rn(y[i]);
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x[i], y[i]);
  HalfResults result;
  result.x = __bfloat16_as_ushort(a);
  result.sum = __bfloat16_as_ushort(__hadd(a, b));
  result.difference = __bfloat16_as_ushort(__hsub(a, b));
  result.product = __bfloat16_as_ushort(a * b);
  result.quotient = __bfloat16_as_ushort(a / b);
  result.low = __bfloat16_as_ushort(__low2bfloat16(pair));
  result.high = __bfloat16_as_ushort(__high2bfloat16(pair));
  result.largest = __bfloat16_as_ushort(__hmax(a, b));
  result.x_again = __bfloat162float(__ushort_as_bfloat16(result.x));
  result.pair_y = __bfloat1622float2(__float22bfloat162_rn(make_float2(x[i], y[i]))).y;
  result.less = a < b;
  results[i] = result;
}

__global__ void intrinsics_kernel(const uint32_t* x, const uint32_t* y, Intrinsics* results) {
  const uint32_t a = x[threadIdx.x], b = y[threadIdx.x];
  const unsigned long long wide = static_cast<unsigned long long>(a) << 32 | b;
  Intrinsics result;
  result.popc = __popc(a);
  result.popcll = __popcll(wide);
  result.ffs = __ffs(static_cast<int>(a));
  result.ffsll = __ffsll(static_cast<long long>(wide));
  result.clz = __clz(static_cast<int>(a));
  result.clzll = __clzll(static_cast<long long>(wide));
  result.brev = __brev(a);
  result.umulhi = __umulhi(a, b);
  result.funnel_left = __funnelshift_l(b, a, 5);
  result.funnel_right = __funnelshift_r(b, a, 5);
  result.umul64hi = __umul64hi(wide, wide);
  result.int_min = min(static_cast<int>(a), static_cast<int>(b));
  result.rounded = __float2int_rn(2.5f);
  result.float_max = max(fmaxf(1.0f, 2.0f), 3.0f);
  result.float_bits = __uint_as_float(__float_as_uint(1.0f));
  result.rsqrt = rsqrtf(4.0f);
  result.exp = __expf(1.0f);
  result.log = __logf(2.0f);
  result.exp2 = ex2_approx(3.0f);
  results[threadIdx.x] = result;
}

template <int Count>
cudaError_t launch_ldmatrix(bool trans, const uint16_t* matrices, uint32_t* registers) {
  if (trans) return launch(ldmatrix_kernel<Count, true>, 1, 32, 0, nullptr, matrices, registers);
  return launch(ldmatrix_kernel<Count, false>, 1, 32, 0, nullptr, matrices, registers);
}

}  // namespace

cudaError_t mma_registers(bool half, const uint32_t* a, const uint32_t* b, float* d) {
  if (half) return launch(mma_kernel<__half>, 1, 32, 0, nullptr, a, b, d);
  return launch(mma_kernel<__nv_bfloat16>, 1, 32, 0, nullptr, a, b, d);
}
cudaError_t ldmatrix_registers(int count, bool trans, const uint16_t* matrices,
                               uint32_t* registers) {
  if (count == 4) return launch_ldmatrix<4>(trans, matrices, registers);
  return count == 2 ? launch_ldmatrix<2>(trans, matrices, registers) : cudaErrorInvalidValue;
}
cudaError_t warp_op(WarpOp op, uint32_t mask, int width, const uint32_t* values,
                    const int* operands, uint32_t* results) {
  return launch(warp_op_kernel, 1, 32, 0, nullptr, op, mask, width, values, operands, results);
}
cudaError_t barrier_ops(const int* predicates, int* results, int num_threads) {
  return launch(barrier_kernel, 1, num_threads, 0, nullptr, predicates, results);
}
cudaError_t atomics(int* words, int num_threads) {
  return launch(atomics_kernel, 1, num_threads, 0, nullptr, words);
}
cudaError_t async_groups(const uint32_t* input, uint32_t* results) {
  return launch(async_kernel, 1, 32, 12 * sizeof(uint32_t), nullptr, input, results);
}
cudaError_t half_ops(const float* x, const float* y, HalfResults* results, int length) {
  return launch(half_kernel, (length + 127) / 128, 128, 0, nullptr, x, y, results, length);
}
cudaError_t bfloat16_ops(const float* x, const float* y, HalfResults* results, int length) {
  return launch(bfloat16_kernel, (length + 127) / 128, 128, 0, nullptr, x, y, results, length);
}
cudaError_t intrinsics(const uint32_t* x, const uint32_t* y, Intrinsics* results, int length) {
  return launch(intrinsics_kernel, 1, length, 0, nullptr, x, y, results);
}

}  // namespace simt_testing
