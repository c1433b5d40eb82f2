// The trees of a step, from the host's drafts and the heads' candidates.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/ptx.cuh"

namespace medusa::cuda {
namespace {

// ---- kernels ----------------------------------------------------------------------------------

struct SharedTree {
  int* tokens;   // [N]
  int* parents;  // [N], -1: the root, a double, or nothing
  int* nodes;    // [N], the node that a draft has become; -1: none
};

// The token that a draft stands for, or -1.
__device__ __forceinline__ int draft_token(const MergeDraftsParams& params, int64_t b, int draft) {
  if (draft >= 0) return draft;
  const int code = -1 - draft, head = code / kMaxHeadRanks, rank = code % kMaxHeadRanks;
  if (head >= params.num_heads || rank >= params.top_k) return -1;
  return params.top_ids[(b * params.num_heads + head) * params.top_k + rank];
}

// The first child of `parent` with this token before node `end`, or -1; the lanes look at all.
__device__ __forceinline__ int find_child(const SharedTree& tree, int end, int parent, int token,
                                          int lane) {
  for (int base = parent + 1; base < end; base += kWarp) {
    const int j = base + lane;
    const bool is_child = j < end && tree.parents[j] == parent && tree.tokens[j] == token;
    const unsigned found = __ballot_sync(kAllLanes, is_child);
    if (found != 0) return base + __ffs(static_cast<int>(found)) - 1;
  }
  return -1;
}

// Grid (B'), one warp each: it owns a sequence's tree, which it builds in shared memory. Drafts are
// taken in order, so that a parent has found its node before its children ask for it.
__global__ void __launch_bounds__(kWarp) merge_drafts_kernel(MergeDraftsParams params) {
  const int64_t b = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  const int max_nodes = params.max_nodes;
  SharedTree tree;
  tree.tokens = reinterpret_cast<int*>(dynamic_shared);
  tree.parents = tree.tokens + max_nodes;
  tree.nodes = tree.parents + max_nodes;

  const int num_drafts = params.num_drafts[b];
  for (int j = lane; j < max_nodes; j += kWarp) {
    const bool is_draft = j < num_drafts;
    tree.tokens[j] = is_draft ? draft_token(params, b, params.draft_tokens[b * max_nodes + j]) : -1;
    tree.parents[j] = is_draft ? params.draft_parents[b * max_nodes + j] : -1;
    tree.nodes[j] = j == 0 ? 0 : -1;
  }
  __syncwarp();
  for (int j = 1; j < num_drafts; ++j) {
    const int parent = tree.nodes[tree.parents[j]], token = tree.tokens[j];
    const bool exists = parent >= 0 && token >= 0;
    const int node = exists ? find_child(tree, j, parent, token, lane) : -1;
    __syncwarp();
    if (lane == 0) {
      tree.nodes[j] = exists && node < 0 ? j : node;
      tree.parents[j] = exists && node < 0 ? parent : -1;
    }
    __syncwarp();
  }
  for (int j = lane; j < max_nodes; j += kWarp) {
    const int64_t row = b * max_nodes + j;
    const bool is_node = tree.nodes[j] == j;
    params.tokens[row] = tree.tokens[is_node ? j : 0];
    params.parents[row] = tree.parents[j];
  }
  if (lane == 0) params.num_nodes[b] = num_drafts;
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t merge_drafts(const CudaContext& context, const MergeDraftsParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  const size_t shared = 3 * sizeof(int) * static_cast<size_t>(params.max_nodes);
  return launch(merge_drafts_kernel, dim3(params.num_sequences), dim3(kWarp), shared,
                context.stream, params);
}

}  // namespace medusa::cuda
