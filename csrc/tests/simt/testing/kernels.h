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
  kUninitialisedLocal,
  kUninitialisedGlobal,
  // in `collective`
  kHalfWarpAtFullMask,
  kBarrierAtTwoSites,
  kBarrierSkippedByReturn,
  kLaneOutsideMask,
  kOverlappingMasks,
  kReturnedLaneInMask,
  kLoopCountsDiffer,
  kWaitForEachOther,
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

// ---- instruction_kernels.cu: one block, every thread's result ---------------------------------
// a[32][4], b[32][2], d[32][4]: registers by lane; d is read and written.
cudaError_t mma_registers(bool half, const uint32_t* a, const uint32_t* b, float* d);
// Loads matrices[count][8][8], registers[32][count].
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
// results[lane] of the lanes in the mask, over values[lane]; shuffles take operands[lane] and
// width.
cudaError_t warp_op(WarpOp op, uint32_t mask, int width, const uint32_t* values,
                    const int* operands, uint32_t* results);
// results[num_threads][3]: __syncthreads_count, _and, _or.
cudaError_t barrier_ops(const int* predicates, int* results, int num_threads);
// Each of num_threads threads applies each atomic to words[i] with value thread + 1, on memory
// that is global, then shared.
constexpr int kNumAtomics = 10;
cudaError_t atomics(int* words, int num_threads);
// results[i]: the words of shared memory after waits for all but 2, 1, 0 of three groups of 16
// bytes, the last copy invalid.
cudaError_t async_groups(const uint32_t* input, uint32_t* results);
// results[i] = the conversions of x[i], y[i] and operators on them.
struct HalfResults {
  uint16_t x, sum, difference, product, quotient, low, high, largest;
  float x_again, pair_y;
  bool less;
};
cudaError_t half_ops(const float* x, const float* y, HalfResults* results, int length);
cudaError_t bfloat16_ops(const float* x, const float* y, HalfResults* results, int length);
struct Intrinsics {
  int popc, popcll, ffs, ffsll, clz, clzll;
  uint32_t brev, umulhi, funnel_left, funnel_right;
  unsigned long long umul64hi;
  int int_min, rounded;
  float float_max, float_bits, rsqrt, exp, log, exp2;
};
cudaError_t intrinsics(const uint32_t* x, const uint32_t* y, Intrinsics* results, int length);

}  // namespace simt_testing
