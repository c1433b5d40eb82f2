// Typical acceptance: log-sum-exp and entropy of every node, the longest path whose tokens are all
// typical, then a draw at its end.
#include <algorithm>

#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/ptx.cuh"
#include "cuda/runtime/workspace.h"
#include "cuda/sampling/sample_rows.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kMaxNodes = 32 * kWarp;  // a lane remembers its nodes in 32 bits

struct WalkArgs {
  AcceptTypicalParams params;
  const float* log_sum_exp;  // [B, N]
  const float* entropy;      // [B, N]
  const int32_t* argmax;     // [B, N]
  int32_t* row_index;        // [B], the logits row of the next root, -1 for none
  int32_t* positions;        // [B], the next root's position
};

// ---- kernels ----------------------------------------------------------------------------------

__device__ __forceinline__ int64_t first_row(const AcceptParams& accept, int64_t b) {
  return accept.first_rows != nullptr ? accept.first_rows[b] : b * accept.max_nodes;
}

__device__ __forceinline__ int node_count(const AcceptParams& accept, int64_t b) {
  return accept.num_nodes != nullptr ? accept.num_nodes[b] : accept.max_nodes;
}

// Grid (ceil(N / threads), B). A thread owns a node and names its row of the logits, -1 for
// padding and for sequences whose rule is not typical.
__global__ void __launch_bounds__(kThreads)
    node_rows_kernel(AcceptParams accept, SamplingRules rules, int32_t* rows) {
  const int node = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int64_t b = blockIdx.y;
  if (node >= accept.max_nodes) return;
  rows[b * accept.max_nodes + node] = rules[b].typical && node < node_count(accept, b)
                                          ? static_cast<int32_t>(first_row(accept, b) + node)
                                          : -1;
}

// log p of a token at its parent (node `parent` of [B, N], row `row` of the logits), or -inf when
// it is not typical there. At temperature 0 the distribution is one token, the arg-max.
__device__ __forceinline__ float typical_log_prob(const WalkArgs& args, const SamplingRule& rule,
                                                  int64_t parent, int64_t row, int32_t token) {
  const AcceptTypicalParams& params = args.params;
  if (rule.temperature <= 0) {
    return args.argmax[parent] == token ? 0.0f : negative_infinity();
  }
  const float logit = load_as_float(params.logits, params.dtype, row * params.width + token);
  const float log_prob = logit / rule.temperature - args.log_sum_exp[parent];
  const float bound = fminf(rule.epsilon, rule.delta * expf(-args.entropy[parent]));
  return expf(log_prob) > bound ? log_prob : negative_infinity();
}

// Grid (B), one warp each: it owns a sequence. Depths and sums of log p spread from the root level
// by level, so that a node's sum is its parent's plus its own; depth 0 marks a node not reached.
// The best node is the deepest, then the most probable, then the first.
__global__ void __launch_bounds__(kWarp) walk_kernel(WalkArgs args) {
  const AcceptParams& accept = args.params.accept;
  const int64_t b = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  const SamplingRule rule = args.params.rules[b];
  if (!rule.typical) {
    if (lane == 0) args.row_index[b] = -1;
    return;
  }
  const int64_t first = first_row(accept, b);
  const int32_t* tokens = accept.tokens + first;
  const int32_t* parents = accept.parents + first;
  const int num_nodes = node_count(accept, b);
  int* depth = reinterpret_cast<int*>(dynamic_shared);                   // [N], the root's is 1
  float* log_prob = reinterpret_cast<float*>(depth + accept.max_nodes);  // [N], the node's own
  float* total = log_prob + accept.max_nodes;                            // [N]

  for (int j = lane; j < num_nodes; j += kWarp) {
    const int parent = parents[j];
    depth[j] = j == 0 ? 1 : 0;
    total[j] = 0;
    log_prob[j] = j == 0 || parent < 0 ? negative_infinity()
                                       : typical_log_prob(args, rule, b * accept.max_nodes + parent,
                                                          first + parent, tokens[j]);
  }
  __syncwarp();
  for (int level = 1; level < accept.max_path; ++level) {
    uint32_t reached = 0;  // bit i: this lane's i-th node
    for (int j = lane, i = 0; j < num_nodes; j += kWarp, ++i) {
      if (log_prob[j] == negative_infinity() || depth[parents[j]] != level) continue;
      reached |= 1u << i;
    }
    if (!__any_sync(kAllLanes, reached != 0)) break;
    __syncwarp();
    for (int j = lane, i = 0; j < num_nodes; j += kWarp, ++i) {
      if ((reached >> i & 1) == 0) continue;
      depth[j] = level + 1;
      total[j] = total[parents[j]] + log_prob[j];
    }
    __syncwarp();
  }

  uint64_t best_key = 0;
  int best = num_nodes > 0 ? 0 : -1;
  for (int j = lane; j < num_nodes; j += kWarp) {
    if (depth[j] == 0) continue;
    const uint64_t key = static_cast<uint64_t>(depth[j]) << 32 | ordered_bits(total[j]);
    if (key > best_key) {
      best_key = key;
      best = j;
    }
  }
  const uint64_t top = warp_max_key(best_key);
  best = __reduce_min_sync(kAllLanes, best_key == top ? best : 0x7fffffff);

  const int count = best >= 0 ? depth[best] : 0;
  int32_t* path = accept.path + b * accept.max_path;
  for (int i = count + lane; i < accept.max_path; i += kWarp) path[i] = -1;
  if (lane != 0) return;
  args.row_index[b] = best >= 0 ? static_cast<int32_t>(first + best) : -1;
  args.positions[b] = args.params.lengths[b] + count;
  accept.count[b] = count;
  if (count == 0) accept.next_root[b] = -1;
  for (int i = count, node = best; i > 0; node = parents[node]) path[--i] = node;
}

int32_t num_padded_nodes(const AcceptParams& accept) {
  return accept.num_sequences * accept.max_nodes;
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

int64_t workspace_bytes(const AcceptTypicalParams& params) {
  const AcceptParams& accept = params.accept;
  const int64_t rows = num_padded_nodes(accept);
  return 4 * aligned_bytes(rows * 4) + 2 * aligned_bytes(accept.num_sequences * int64_t{4}) +
         std::max(row_reduction_bytes(static_cast<int32_t>(rows), params.width),
                  sample_rows_bytes(accept.num_sequences, params.width));
}

cudaError_t accept_typical(const CudaContext& context, const AcceptTypicalParams& params) {
  const AcceptParams& accept = params.accept;
  if (accept.num_sequences == 0) return cudaSuccess;
  if (accept.max_nodes > kMaxNodes) return cudaErrorInvalidValue;
  if (workspace_bytes(params) > context.workspace_bytes) return cudaErrorMemoryAllocation;
  const int32_t rows = num_padded_nodes(accept);
  Workspace workspace(context.workspace);
  auto* log_sum_exp = workspace.take<float>(rows);
  auto* entropy = workspace.take<float>(rows);
  auto* argmax = workspace.take<int32_t>(rows);
  auto* node_rows = workspace.take<int32_t>(rows);
  auto* row_index = workspace.take<int32_t>(accept.num_sequences);
  auto* positions = workspace.take<int32_t>(accept.num_sequences);

  cudaError_t status = launch(
      node_rows_kernel, dim3((accept.max_nodes + kThreads - 1) / kThreads, accept.num_sequences),
      dim3(kThreads), 0, context.stream, accept, params.rules, node_rows);
  if (status != cudaSuccess) return status;

  RowReductionParams reduction;
  reduction.rows = {rows, params.width, params.dtype, params.logits, params.width, node_rows};
  reduction.rules = params.rules;
  reduction.rows_per_rule = accept.max_nodes;
  reduction.out = argmax;
  reduction.log_sum_exp = log_sum_exp;
  reduction.entropy = entropy;
  reduction.partials = workspace.rest();
  status = reduce_rows(context, RowReduction::kEntropy, reduction);
  if (status != cudaSuccess) return status;

  const WalkArgs walk = {params, log_sum_exp, entropy, argmax, row_index, positions};
  status = launch(walk_kernel, dim3(accept.num_sequences), dim3(kWarp),
                  static_cast<size_t>(accept.max_nodes) * 12, context.stream, walk);
  if (status != cudaSuccess) return status;

  SampleRowsParams draw;
  draw.rows = {accept.num_sequences, params.width, params.dtype,
               params.logits,        params.width, row_index};
  draw.seeds = params.seeds;
  draw.positions = positions;
  draw.rules = params.rules;
  draw.out = accept.next_root;
  draw.workspace = workspace.rest();
  return sample_rows(context, draw);
}

}  // namespace medusa::cuda
