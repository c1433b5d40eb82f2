// Joins the host's drafts with the heads' tree.
#include "cuda/device_math.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/step.h"

namespace medusa::cuda {
namespace {

// ---- kernels ----------------------------------------------------------------------------------

struct SharedTree {
  int* tokens;       // [N]
  int* parents;      // [N]
  int* depths;       // [N]
  int* draft_nodes;  // [M], -1: dropped
};

// The child of `parent` with this token, or -1; the lanes look at all nodes.
__device__ __forceinline__ int find_child(const SharedTree& tree, int num_nodes, int parent,
                                          int token, int lane) {
  for (int base = parent + 1; base < num_nodes; base += kWarp) {
    const int j = base + lane;
    const bool is_child = j < num_nodes && tree.parents[j] == parent && tree.tokens[j] == token;
    const unsigned found = __ballot_sync(kAllLanes, is_child);
    if (found != 0) return base + __ffs(static_cast<int>(found)) - 1;
  }
  return -1;
}

// Grid (B), one warp each: it owns a sequence's tree, which it builds in shared memory. Drafts are
// taken in order, so that a parent is placed before its children.
__global__ void __launch_bounds__(kWarp) merge_drafts_kernel(MergeDraftsParams params) {
  const int64_t b = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  SharedTree tree;
  tree.tokens = reinterpret_cast<int*>(dynamic_shared);
  tree.parents = tree.tokens + params.max_nodes;
  tree.depths = tree.parents + params.max_nodes;
  tree.draft_nodes = tree.depths + params.max_nodes;

  int num_nodes = params.num_base_nodes;
  for (int j = lane; j < params.max_nodes; j += kWarp) {
    const bool is_node = j < num_nodes;
    tree.tokens[j] = is_node ? params.base_tokens[b * num_nodes + j] : -1;
    tree.parents[j] = is_node ? params.base_parents[j] : -1;
    int depth = 0;
    for (int i = j; is_node && params.base_parents[i] >= 0; i = params.base_parents[i]) ++depth;
    tree.depths[j] = depth;
  }
  __syncwarp();

  const int num_drafts = params.num_drafts[b];
  for (int draft = 0; draft < num_drafts; ++draft) {
    const int64_t index = b * params.max_drafts + draft;
    const int token = params.draft_tokens[index], draft_parent = params.draft_parents[index];
    const int parent = draft_parent < 0 ? 0 : tree.draft_nodes[draft_parent];
    int node = parent < 0 ? -1 : find_child(tree, num_nodes, parent, token, lane);
    const bool has_room = parent >= 0 && node < 0 && num_nodes < params.max_nodes &&
                          tree.depths[parent] + 2 <= params.max_path;
    __syncwarp();
    if (has_room) node = num_nodes++;
    if (lane == 0) {
      tree.draft_nodes[draft] = node;
      if (has_room) {
        tree.tokens[node] = token;
        tree.parents[node] = parent;
        tree.depths[node] = tree.depths[parent] + 1;
      }
    }
    __syncwarp();
  }
  for (int j = lane; j < params.max_nodes; j += kWarp) {
    params.tokens[b * params.max_nodes + j] = tree.tokens[j];
    params.parents[b * params.max_nodes + j] = tree.parents[j];
  }
  if (lane == 0) params.num_nodes[b] = num_nodes;
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t merge_drafts(const CudaContext& context, const MergeDraftsParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  if (params.num_base_nodes > params.max_nodes) return cudaErrorInvalidValue;
  const size_t shared = sizeof(int) * (3 * static_cast<size_t>(params.max_nodes) +
                                       static_cast<size_t>(params.max_drafts));
  return launch(merge_drafts_kernel, dim3(params.num_sequences), dim3(kWarp), shared,
                context.stream, params);
}

}  // namespace medusa::cuda
