// Greedy or sampled acceptance: the walk down the tree along the targets.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

// ---- kernels ----------------------------------------------------------------------------------

// Grid (B), one warp each: it owns a sequence's walk. At every node the lanes look through all
// later nodes for the child whose token is the node's target, lowest first. A sequence without
// nodes gets count 0 and root -1.
__global__ void __launch_bounds__(kWarp) accept_kernel(AcceptParams params) {
  const int64_t b = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t first = params.first_rows != nullptr ? params.first_rows[b] : b * params.max_nodes;
  const int32_t* tokens = params.tokens + first;
  const int32_t* targets = params.targets + first;
  const int32_t* parents = params.parents + first;
  const int num_nodes = params.num_nodes != nullptr ? params.num_nodes[b] : params.max_nodes;
  int32_t* path = params.path + b * params.max_path;

  int count = 0, next_root = -1;
  int node = num_nodes > 0 ? 0 : -1;
  while (node >= 0 && count < params.max_path) {
    if (lane == 0) path[count] = node;
    ++count;
    next_root = targets[node];
    int child = -1;
    for (int base = node + 1; base < num_nodes && child < 0; base += kWarp) {
      const int j = base + lane;
      const bool is_child = j < num_nodes && parents[j] == node && tokens[j] == next_root;
      const unsigned found = __ballot_sync(kAllLanes, is_child);
      if (found != 0) child = base + __ffs(static_cast<int>(found)) - 1;
    }
    node = child;
  }
  for (int i = count + lane; i < params.max_path; i += kWarp) path[i] = -1;
  if (lane == 0) {
    params.count[b] = count;
    params.next_root[b] = next_root;
  }
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t accept(const CudaContext& context, const AcceptParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  return launch(accept_kernel, dim3(params.num_sequences), dim3(kWarp), 0, context.stream, params);
}

}  // namespace medusa::cuda
