// Packed rows and ancestor masks of padded trees, from the parents alone.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 64;

// ---- kernels ----------------------------------------------------------------------------------

// Grid (ceil(N / threads), B). A thread owns a node: it walks up to the root, setting a mask bit at
// every step. The first thread of a sequence writes what belongs to the sequence.
__global__ void __launch_bounds__(kThreads) tree_rows_kernel(TreeRowsParams params) {
  const int b = static_cast<int>(blockIdx.y);
  const int node = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (node == 0) {
    params.first_rows[b] = b * params.num_nodes;
    if (params.cache_slots != nullptr) params.cache_slots[b] = b;
    if (b == params.num_sequences - 1) {
      params.first_rows[params.num_sequences] = params.num_sequences * params.num_nodes;
    }
  }
  if (node >= params.num_nodes) return;
  const int64_t row = int64_t{b} * params.num_nodes + node;
  const int32_t* parents = params.parents + int64_t{b} * params.num_nodes;
  uint64_t* mask = params.ancestors + row * params.mask_words;
  for (int word = 0; word < params.mask_words; ++word) mask[word] = 0;
  int depth = -1;
  for (int ancestor = node; ancestor >= 0; ancestor = parents[ancestor]) {
    mask[ancestor / 64] |= uint64_t{1} << ancestor % 64;
    ++depth;
  }
  params.sequences[row] = b;
  params.nodes[row] = node;
  params.positions[row] = params.lengths[b] + depth;
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t tree_rows(const CudaContext& context, const TreeRowsParams& params) {
  if (params.num_sequences == 0 || params.num_nodes == 0) return cudaSuccess;
  const dim3 grid((params.num_nodes + kThreads - 1) / kThreads, params.num_sequences);
  return launch(tree_rows_kernel, grid, dim3(kThreads), 0, context.stream, params);
}

}  // namespace medusa::cuda
