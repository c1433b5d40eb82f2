#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/ptx.cuh"
#include "kernels.h"

namespace simt_testing {
namespace {

using medusa::cuda::launch;
using namespace medusa::cuda;

__device__ __forceinline__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
  }
  return value;
}

__global__ void __launch_bounds__(1024)
    block_sum_kernel(const float* input, float* sums, int length) {
  __shared__ float partial[32];
  float sum = 0;
  for (int i = threadIdx.x; i < length; i += blockDim.x) {
    sum += __ldg(input + static_cast<int64_t>(blockIdx.x) * length + i);
  }
  sum = warp_sum(sum);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    sum = warp_sum(lane < static_cast<int>(blockDim.x) / 32 ? partial[lane] : 0.0f);
    if (lane == 0) sums[blockIdx.x] = sum;
  }
}

__global__ void __launch_bounds__(1024) scan_kernel(const int* input, int* output) {
  __shared__ int totals[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, num_warps = blockDim.x / 32;
  int value = input[threadIdx.x];
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(0xFFFFFFFFu, value, offset);
    if (lane >= offset) value += other;
  }
  if (lane == 31) totals[warp] = value;
  __syncthreads();
  if (warp == 0) {
    int total = lane < num_warps ? totals[lane] : 0;
    for (int offset = 1; offset < 32; offset *= 2) {
      const int other = __shfl_up_sync(0xFFFFFFFFu, total, offset);
      if (lane >= offset) total += other;
    }
    __syncwarp();
    totals[lane] = total;
  }
  __syncthreads();
  output[threadIdx.x] = value + (warp > 0 ? totals[warp - 1] : 0);
}

// A block of 4 warps makes a 64 x 64 tile of c, each warp 16 rows. Chunks of 32 of K are copied
// into one half of the buffer while the other is multiplied. A row's 16-byte pieces are XORed by
// the row, so that ldmatrix meets no bank twice.
constexpr int kTile = 64, kChunk = 32;

template <typename T>
struct Buffer {
  T a[2][kTile][kChunk];
  T b[2][kChunk][kTile];
};

template <typename T>
__device__ __forceinline__ T* a_piece(Buffer<T>& buffer, int half, int row, int piece) {
  return &buffer.a[half][row][(piece ^ (row / 2 % 4)) * 8];
}
template <typename T>
__device__ __forceinline__ T* b_piece(Buffer<T>& buffer, int half, int row, int piece) {
  return &buffer.b[half][row][(piece ^ (row % 8)) * 8];
}

template <typename T>
__device__ __forceinline__ void copy_chunk(Buffer<T>& buffer, int half, const T* a, const T* b,
                                           int n, int k) {
  for (int i = threadIdx.x; i < kTile * kChunk / 8; i += blockDim.x) {
    const int row = i / 4, piece = i % 4;
    cp_async_16(a_piece(buffer, half, row, piece), a + static_cast<int64_t>(row) * k + piece * 8);
    const int b_row = i / 8, b_col = i % 8;
    cp_async_16(b_piece(buffer, half, b_row, b_col),
                b + static_cast<int64_t>(b_row) * n + b_col * 8);
  }
  cp_async_commit();
}

template <typename T>
__global__ void __launch_bounds__(128, 2)
    matmul_kernel(const T* a, const T* b, float* c, int n, int k) {
  auto& buffer = *reinterpret_cast<Buffer<T>*>(dynamic_shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  a += static_cast<int64_t>(blockIdx.y) * kTile * k;
  b += blockIdx.x * kTile;
  float d[8][4] = {};

  copy_chunk(buffer, 0, a, b, n, k);
  for (int start = 0, half = 0; start < k; start += kChunk, half ^= 1) {
    if (start + kChunk < k) {
      copy_chunk(buffer, half ^ 1, a + start + kChunk, b + static_cast<int64_t>(start + kChunk) * n,
                 n, k);
    } else {
      cp_async_commit();
    }
    cp_async_wait<1>();
    __syncthreads();
#pragma unroll
    for (int step = 0; step < kChunk / 16; ++step) {
      uint32_t a_registers[4];
      ldmatrix_x4(a_registers, a_piece(buffer, half, warp * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
      for (int column = 0; column < 8; ++column) {
        uint32_t b_registers[2];
        ldmatrix_x2_trans(b_registers, b_piece(buffer, half, step * 16 + lane % 16, column));
        mma_m16n8k16<T>(d[column], a_registers, b_registers);
      }
    }
    __syncthreads();
  }

  for (int column = 0; column < 8; ++column) {
    for (int i = 0; i < 4; ++i) {
      const int row = blockIdx.y * kTile + warp * 16 + lane / 4 + i / 2 * 8;
      const int col = blockIdx.x * kTile + column * 8 + lane % 4 * 2 + i % 2;
      c[static_cast<int64_t>(row) * n + col] = d[column][i];
    }
  }
}

template <typename T>
cudaError_t launch_matmul(const T* a, const T* b, float* c, int m, int n, int k) {
  return launch(matmul_kernel<T>, dim3(n / kTile, m / kTile), 128, sizeof(Buffer<T>), nullptr, a, b,
                c, n, k);
}

__global__ void __launch_bounds__(128)
    histogram_kernel(const uint8_t* input, int* counts, int length) {
  __shared__ int local[256];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < length; i += gridDim.x * blockDim.x) {
    atomicAdd(&local[input[i]], 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(counts + i, local[i]);
}

__global__ void coordinates_kernel(uint32_t* output) {
  const uint32_t thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const uint32_t block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  output[block * blockDim.x * blockDim.y * blockDim.z + thread] =
      blockIdx.x << 20 | blockIdx.y << 16 | blockIdx.z << 12 | threadIdx.x << 8 | threadIdx.y << 4 |
      threadIdx.z;
}

}  // namespace

cudaError_t block_sum(const float* input, float* sums, int num_blocks, int length, int threads) {
  return launch(block_sum_kernel, num_blocks, threads, 0, nullptr, input, sums, length);
}
cudaError_t scan(const int* input, int* output, int length) {
  return launch(scan_kernel, 1, length, 0, nullptr, input, output);
}
cudaError_t matmul(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n, int k) {
  return launch_matmul(a, b, c, m, n, k);
}
cudaError_t matmul(const __half* a, const __half* b, float* c, int m, int n, int k) {
  return launch_matmul(a, b, c, m, n, k);
}
cudaError_t histogram(const uint8_t* input, int* counts, int length) {
  return launch(histogram_kernel, 3, 128, 0, nullptr, input, counts, length);
}
cudaError_t coordinates(uint32_t* output, dim3 grid, dim3 block) {
  return launch(coordinates_kernel, grid, block, 0, nullptr, output);
}

}  // namespace simt_testing
