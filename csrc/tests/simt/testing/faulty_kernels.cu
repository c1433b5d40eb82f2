// Each kernel copies input to output, 256 floats, and can be given one fault.
#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/ptx.cuh"
#include "kernels.h"

namespace simt_testing {
namespace {

using namespace medusa::cuda;

constexpr int kLength = 256, kThreads = 128, kPart = 64;

// Parts of 64 floats go through two halves of shared memory, one being filled by 16 threads while
// the 64 threads of two warps read the other; each thread reads what another has copied.
template <Fault fault>
__global__ void __launch_bounds__(kThreads) pipeline_kernel(const float* input, float* output) {
  auto* buffer = reinterpret_cast<float*>(dynamic_shared);
  const int thread = threadIdx.x;
  const auto fill = [&](int part) {
    if (thread < 16 && part < kLength / kPart) {
      float* to = buffer + part % 2 * kPart + thread * 4;
      if (fault == Fault::kMisalignedCopy) to += 1;
      if (fault == Fault::kCopyOutsideShared) to += 2 * kPart;
      cp_async_16(to, input + part * kPart + thread * 4);
    }
    cp_async_commit();
  };
  fill(0);
  for (int part = 0; part < kLength / kPart; ++part) {
    fill(part + 1);
    const bool leave_early = fault == Fault::kReturnWithoutWait && part == kLength / kPart - 1;
    if (fault != Fault::kNoWait && !leave_early) cp_async_wait<1>();
    if (fault != Fault::kNoBarrierAfterWait) __syncthreads();
    if (thread >= kPart) {
      const int i = thread % kPart;
      if (!leave_early) output[part * kPart + i] = buffer[part % 2 * kPart + i];
    }
    if (fault != Fault::kNoBarrierBeforeReuse) __syncthreads();
  }
  if (fault == Fault::kNoWait) cp_async_wait<0>();
}

__device__ float block_max(float value, float* scratch, bool last_barrier) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, offset));
  }
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = fmaxf(fmaxf(scratch[0], scratch[1]), fmaxf(scratch[2], scratch[3]));
  if (last_barrier) __syncthreads();  // the scratch may be written again
  return value;
}

template <Fault fault>
__global__ void __launch_bounds__(kThreads) exchange_kernel(const float* input, float* output) {
  __shared__ float values[kLength];
  __shared__ float scratch[4];
  __shared__ int counter;
  const int thread = threadIdx.x, lane = thread % 32, warp_start = thread - lane;
  if (fault == Fault::kMemcpyWithoutBarrier) {
    if (lane == 0) memcpy(values + thread, input + thread, 32 * sizeof(float));
    output[thread] = values[thread];
  }
  // Across warps.
  values[thread] = input[thread];
  if (fault != Fault::kNoBlockBarrier) __syncthreads();
  output[kThreads - 1 - thread] = values[kThreads - 1 - thread];
  __syncthreads();
  // Within a warp.
  values[thread] = input[kThreads + thread];
  if (fault == Fault::kShuffleAsBarrier) {
    __shfl_sync(0xFFFFFFFFu, thread, 0);
  } else if (fault == Fault::kPartialWarpBarrier) {
    __syncwarp(lane < 16 ? 0xFFFFu : 0xFFFF0000u);
  } else if (fault != Fault::kNoWarpBarrier) {
    __syncwarp();
  }
  const int other = warp_start + 31 - lane;
  output[kThreads + other] = values[other];
  __syncthreads();
  // Twice through the same scratch: the second value must not reach those that read the first.
  const float first = block_max(1.0f, scratch, fault != Fault::kNoSecondBarrier);
  const float second = block_max(2.0f, scratch, true);
  if (first != 1.0f || second != 2.0f) output[thread] = -1.0f;
  // Atomic and plain access to the same word.
  if (thread == 0) counter = 0;
  __syncthreads();
  atomicAdd(&counter, 1);
  if (fault == Fault::kPlainBesideAtomic && thread == 77) counter = 5;
  __syncthreads();
}

template <Fault fault>
__global__ void __launch_bounds__(kThreads)
    access_kernel(const float* input, float* output, int length, float* scratch) {
  __shared__ float small[128];
  auto* large = reinterpret_cast<float*>(dynamic_shared);
  const int thread = threadIdx.x;
  float local[4] = {0.0f, 1.0f, 2.0f, 3.0f};
  for (int i = thread; i < kLength; i += kThreads) {
    int from = i;
    if (fault == Fault::kGlobalOutOfBounds && i == 200) from = length + 4000;
    float value = input[from];
    if (fault == Fault::kUninitialisedGlobal && i == 200) value = scratch[3];
    if (fault == Fault::kUninitialisedLocal && i == 200) {
      float written[4];
      for (int j = 0; j < length / 100; ++j) written[j] = value;
      value = written[length / 100];
    }
    if (fault != Fault::kUninitialisedShared || i != 200) large[i] = value;
    if (fault == Fault::kDynamicSharedOutOfBounds && i == 200) large[length] = value;
    if (fault == Fault::kStaticSharedOutOfBounds) small[i % 128 + length / 256] = value;
    if (fault == Fault::kStackOutOfBounds) local[length / 16] = value;
    output[i] = large[i];
  }
  if (fault == Fault::kStackOutOfBounds) output[0] = local[thread % 4];
  if (fault == Fault::kStaticSharedOutOfBounds && small[0] == 77.0f) output[0] = 0.0f;
}

template <Fault fault>
__global__ void __launch_bounds__(kThreads)
    collective_kernel(const float* input, float* output, int* flag, int zero) {
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int i = blockIdx.x * kThreads + thread;
  output[i] = input[i];
  if (fault == Fault::kHalfWarpAtFullMask && lane < 16) __syncwarp();
  if (fault == Fault::kBarrierAtTwoSites) {
    if (warp == 0) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  }
  if (fault == Fault::kBarrierSkippedByReturn) {
    if (thread >= 64) return;
    __syncthreads();
  }
  if (fault == Fault::kLaneOutsideMask) __shfl_sync(0xFFFFu, thread, 0);
  if (fault == Fault::kOverlappingMasks) {
    if (lane % 2 == 0) __any_sync(0x55555555u, 1);
    if (lane % 2 == 1) __any_sync(0xAAAAAAABu, 1);
  }
  if (fault == Fault::kReturnedLaneInMask) {
    if (lane == 31) return;
    __any_sync(0xFFFFFFFFu, 1);
  }
  if (fault == Fault::kLoopCountsDiffer) {
    for (int round = 0; round <= warp; ++round) __syncthreads();
  }
  if (fault == Fault::kWaitForEachOther) {
    if (lane < 16) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }
  if (fault == Fault::kWaitForOtherBlock) {  // each block waits for the other
    atomicAdd(flag, 1);
    while (*static_cast<volatile int*>(flag) != 2) {
    }
  }
  // Block 1 counts on block 0 having run before.
  if (fault == Fault::kBlockOrder) output[i] += static_cast<float>(blockIdx.x - *flag);
  if (fault == Fault::kBlockOrder && thread == kThreads - 1) *flag += 1;
  if (fault == Fault::kTrap && thread == 5) __trap();
  if (fault == Fault::kDivisionByZero && thread == 5) output[i] = static_cast<float>(i / zero);
}

__global__ void __launch_bounds__(96) empty_kernel() {}

// Calls f with the fault as a constant, if it is from first to last.
template <int first, int last, typename F>
cudaError_t dispatch(Fault fault, F f) {
  if (fault == Fault::kNone) return f(std::integral_constant<Fault, Fault::kNone>());
  if (fault == static_cast<Fault>(first)) {
    return f(std::integral_constant<Fault, static_cast<Fault>(first)>());
  }
  if constexpr (first < last) return dispatch<first + 1, last>(fault, f);
  return cudaErrorInvalidValue;
}
constexpr int number(Fault fault) { return static_cast<int>(fault); }

}  // namespace

cudaError_t pipeline(Fault fault, const float* input, float* output) {
  return dispatch<number(Fault::kNoBarrierAfterWait), number(Fault::kCopyOutsideShared)>(
      fault, [&](auto constant) {
        return launch(pipeline_kernel<constant.value>, 1, kThreads, 2 * kPart * sizeof(float),
                      nullptr, input, output);
      });
}

cudaError_t exchange(Fault fault, const float* input, float* output) {
  return dispatch<number(Fault::kNoBlockBarrier), number(Fault::kPartialWarpBarrier)>(
      fault, [&](auto constant) {
        return launch(exchange_kernel<constant.value>, 1, kThreads, 0, nullptr, input, output);
      });
}

cudaError_t access(Fault fault, const float* input, float* output) {
  float* scratch = nullptr;
  cudaError_t status = cudaMalloc(&scratch, 4 * sizeof(float));
  if (status != cudaSuccess) return status;
  status = dispatch<number(Fault::kGlobalOutOfBounds), number(Fault::kUninitialisedGlobal)>(
      fault, [&](auto constant) {
        return launch(access_kernel<constant.value>, 1, kThreads, kLength * sizeof(float), nullptr,
                      input, output, kLength, scratch);
      });
  cudaFree(scratch);
  return status;
}

cudaError_t collective(Fault fault, const float* input, float* output) {
  int* flag = nullptr;
  cudaError_t status = cudaMalloc(&flag, sizeof(int));
  if (status != cudaSuccess) return status;
  cudaMemsetAsync(flag, 0, sizeof(int), nullptr);
  status = dispatch<number(Fault::kHalfWarpAtFullMask), number(Fault::kDivisionByZero)>(
      fault, [&](auto constant) {
        return launch(collective_kernel<constant.value>, 2, kThreads, 0, nullptr, input, output,
                      flag, 0);
      });
  cudaFree(flag);
  return status;
}

cudaError_t empty(dim3 grid, dim3 block, size_t shared_bytes, bool raise_limit) {
  if (raise_limit) return launch(empty_kernel, grid, block, shared_bytes, nullptr);
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  return cudaLaunchKernelEx(&config, empty_kernel);
}

}  // namespace simt_testing
