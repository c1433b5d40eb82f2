// Moves the accepted rows of every cache together, in place, by bytes.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBatch = 8;  // rows a thread reads before it writes any of them

// ---- kernels ----------------------------------------------------------------------------------

// Grid (ceil(G * row_bytes / sizeof(Unit) / threads), caches, B). A thread owns one column of
// sizeof(Unit) bytes of one head and moves all its rows. Paths ascend, so path[i] >= i and a
// destination is never the source of a later row: reading a batch before writing it is enough.
// The rows of a contiguous start of the path are where they belong; nothing of them is read.
template <typename Unit>
__global__ void __launch_bounds__(kThreads) compact_kernel(CompactParams params) {
  const int64_t b = blockIdx.z;
  const int32_t count = params.count[b];
  const int32_t* path = params.path + b * params.max_path;
  const int64_t units = params.row_bytes / static_cast<int64_t>(sizeof(Unit));
  const int64_t column = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (column >= params.num_kv_heads * units) return;
  const int64_t slot = params.cache_slots != nullptr ? params.cache_slots[b] : b;
  auto* base = static_cast<unsigned char*>(params.caches[blockIdx.y]) +
               column / units * params.head_stride +
               column % units * static_cast<int64_t>(sizeof(Unit));
  const int64_t length = params.length[b];
  const auto row = [&](int node) {
    return reinterpret_cast<Unit*>(base + params.page_table.row_offset(slot, length + node,
                                                                       params.slot_stride,
                                                                       params.row_stride));
  };

  int begin = 0;
  while (begin < count && path[begin] == begin) ++begin;
#pragma unroll 1
  for (; begin < count; begin += kBatch) {
    Unit rows[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (begin + i < count) rows[i] = *row(path[begin + i]);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (begin + i < count) *row(begin + i) = rows[i];
    }
  }
}

// Grid (ceil(B / threads)). A launch of its own: every block of the move reads the old length.
__global__ void __launch_bounds__(kThreads) advance_kernel(CompactParams params) {
  const int b = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (b < params.num_sequences) params.length[b] += params.count[b];
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t compact(const CudaContext& context, const CompactParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  const auto is_multiple = [&](int64_t unit) {
    return params.row_bytes % unit == 0 && params.row_stride % unit == 0 &&
           params.head_stride % unit == 0 && params.slot_stride % unit == 0;
  };
  const int64_t unit = is_multiple(16) ? 16 : is_multiple(4) ? 4 : 1;
  const int64_t columns = params.num_kv_heads * (params.row_bytes / unit);
  const dim3 grid(static_cast<unsigned>((columns + kThreads - 1) / kThreads), params.num_caches,
                  params.num_sequences);
  auto* kernel = unit == 16  ? compact_kernel<uint4>
                 : unit == 4 ? compact_kernel<uint32_t>
                             : compact_kernel<uint8_t>;
  if (params.num_caches > 0) {
    const cudaError_t status = launch(kernel, grid, dim3(kThreads), 0, context.stream, params);
    if (status != cudaSuccess) return status;
  }
  if (!params.advance) return cudaSuccess;
  return launch(advance_kernel, dim3((params.num_sequences + kThreads - 1) / kThreads),
                dim3(kThreads), 0, context.stream, params);
}

}  // namespace medusa::cuda
