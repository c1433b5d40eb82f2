// A step's tokens into pinned host memory, end tokens being seen on the device.
#include "cuda/device_math.cuh"
#include "cuda/launch.cuh"
#include "cuda/step.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// ---- kernels ----------------------------------------------------------------------------------

__device__ __forceinline__ bool is_end_token(const PublishParams& params, int token) {
  for (int i = 0; i < params.num_end_tokens; ++i) {
    if (params.end_tokens[i] == token) return true;
  }
  return false;
}

// One sequence by one warp: lanes own emitted tokens. The host reads the entry only after the
// step's number, which the block writes last.
__device__ __forceinline__ void publish_sequence(const PublishParams& params, int64_t entry,
                                                 int64_t b, int lane) {
  const int64_t first = params.first_rows != nullptr ? params.first_rows[b] : b * params.max_nodes;
  const int32_t* path = params.path + b * params.max_path;
  const int64_t row = entry * params.num_sequences + b;
  const bool was_finished = params.finished[b] != 0;
  const int next_root = params.next_root[b];
  int count = was_finished ? 0 : params.count[b];
  bool ended = false;
  int root = next_root;
  for (int base = 0; base < count; base += kWarp) {
    const int i = base + lane;
    int token = -1;
    if (i < count) token = i == count - 1 ? next_root : params.tokens[first + path[i + 1]];
    const unsigned ends = __ballot_sync(kAllLanes, i < count && is_end_token(params, token));
    if (ends != 0) {
      const int end_lane = __ffs(static_cast<int>(ends)) - 1;
      root = __shfl_sync(kAllLanes, token, end_lane);
      count = base + end_lane + 1;
      ended = true;
    }
    if (i < count) params.entries.tokens[row * params.max_path + i] = token;
  }
  __syncwarp();
  if (lane != 0) return;
  params.count[b] = count;
  params.next_root[b] = root;
  if (ended) params.finished[b] = 1;
  params.entries.counts[row] = count;
  params.entries.finished[row] = was_finished || ended ? 1 : 0;
}

// Grid (1): the one block owns the step, its warps a sequence at a time.
__global__ void __launch_bounds__(kThreads) publish_kernel(PublishParams params) {
  const uint64_t step = *params.step;
  const auto entry = static_cast<int64_t>(step % static_cast<uint64_t>(params.entries.capacity));
  for (int b = static_cast<int>(threadIdx.x) / kWarp; b < params.num_sequences; b += kWarps) {
    publish_sequence(params, entry, b, static_cast<int>(threadIdx.x) % kWarp);
  }
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x != 0) return;
  *params.step = step + 1;
  __threadfence_system();
  *reinterpret_cast<volatile uint64_t*>(params.entries.steps + entry) = step + 1;
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t publish(const CudaContext& context, const PublishParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  return launch(publish_kernel, dim3(1), dim3(kThreads), 0, context.stream, params);
}

}  // namespace medusa::cuda
