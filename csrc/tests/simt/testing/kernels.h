// The kernels on which the emulator is tested. All compile under nvcc too.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace simt_testing {

// ---- good_kernels.cu --------------------------------------------------------------------------
// sums[b] = sum of input[b * length …], one block of `threads` each.
cudaError_t block_sum(const float* input, float* sums, int num_blocks, int length, int threads);
// output[i] = input[0] + … + input[i], one block; length <= 1024, a multiple of 32.
cudaError_t scan(const int* input, int* output, int length);
// c[M, N] = a[M, K] * b[K, N], row-major; M, N multiples of 64, K of 32.
cudaError_t matmul(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n, int k);
cudaError_t matmul(const __half* a, const __half* b, float* c, int m, int n, int k);
// counts[v] = how often v occurs in input[length], 256 values, through atomics in shared memory.
cudaError_t histogram(const uint8_t* input, int* counts, int length);
// output = the value of a thread's built-in variables, for a 3-dimensional grid and block.
cudaError_t coordinates(uint32_t* output, dim3 grid, dim3 block);

// ---- faulty_kernels.cu: each has one planted fault --------------------------------------------
enum class Fault {
  kNone,
  // in `pipeline`
  kNoBarrierAfterWait,
  kNoBarrierBeforeReuse,
  kNoWait,
  kReturnWithoutWait,
  kMisalignedCopy,
  kCopyOutsideShared,
  // in `exchange`
  kNoBlockBarrier,
  kNoWarpBarrier,
  kShuffleAsBarrier,
  kNoSecondBarrier,
  kPlainBesideAtomic,
  kMemcpyWithoutBarrier,
  kPartialWarpBarrier,
  // in `access`
  kGlobalOutOfBounds,
  kStaticSharedOutOfBounds,
  kDynamicSharedOutOfBounds,
  kStackOutOfBounds,
  kUninitialisedShared,
  kUninitialisedGlobal,
  // in `collective`
  kHalfWarpAtFullMask,
  kBarrierAtTwoSites,
  kBarrierSkippedByReturn,
  kLaneOutsideMask,
  kOverlappingMasks,
  kReturnedLaneInMask,
  kLoopCountsDiffer,
  kWaitForOtherBlock,
  kBlockOrder,
  kTrap,
  kDivisionByZero,
};
// Each copies input[256] to output[256] when there is no fault.
cudaError_t pipeline(Fault fault, const float* input, float* output);
cudaError_t exchange(Fault fault, const float* input, float* output);
cudaError_t access(Fault fault, const float* input, float* output);
cudaError_t collective(Fault fault, const float* input, float* output);
// A kernel with __launch_bounds__(96) that does nothing, launched as told.
cudaError_t empty(dim3 grid, dim3 block, size_t shared_bytes, bool raise_limit);

// ---- instruction_kernels.cu: one warp, one instruction, every lane's registers ----------------
// a[32][4], b[32][2], d[32][4]: registers by lane.
cudaError_t mma_registers(bool half, const uint32_t* a, const uint32_t* b, float* d);
// shared[32][8] 16-bit values; registers[32][4].
cudaError_t ldmatrix_registers(int count, bool trans, const uint16_t* matrices,
                               uint32_t* registers);
enum class WarpOp {
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
  kAny,
  kAll,
  kMatchAny,
  kAddSigned,
  kMinSigned,
  kMaxSigned,
  kAdd,
  kMin,
  kMax,
  kAnd,
  kOr,
  kXor,
};
// results[lane] = op over values[lane], operand[lane]; lanes outside the mask write 0.
cudaError_t warp_op(WarpOp op, uint32_t mask, int width, const uint32_t* values,
                    const int* operands, uint32_t* results);
// results[3][num_threads]: __syncthreads_count, _and and _or of predicates.
cudaError_t barrier_ops(const int* predicates, int* results, int num_threads);
// Old values and final value of each atomic: results[10][num_threads + 1].
cudaError_t atomics(int* results, int num_threads);
// bits[i] of each conversion and operator; see the test.
cudaError_t half_ops(const float* x, const float* y, uint16_t* results, int length);
cudaError_t bfloat16_ops(const float* x, const float* y, uint16_t* results, int length);
// results: bit and arithmetic intrinsics of x[i], y[i], 16 per i.
cudaError_t intrinsics(const uint32_t* x, const uint32_t* y, uint32_t* results, int length);
// The groups of cp.async: results[i] = what is in shared memory after wait_group<2>, <1>, <0>.
cudaError_t async_groups(const uint4* input, uint4* results);

}  // namespace simt_testing
