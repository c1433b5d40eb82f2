// A step's tokens into pinned host memory, end tokens being seen on the device.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

// ---- kernels ----------------------------------------------------------------------------------

__device__ __forceinline__ bool is_end_token(const PublishParams& params, const int32_t* end_tokens,
                                             int token) {
  for (int i = 0; i < params.num_end_tokens; ++i) {
    if (end_tokens[i] == token) return true;
  }
  return false;
}

// One sequence by one warp: lanes own emitted tokens. The host reads the entry only after the
// step's number, which the block writes last.
__device__ __forceinline__ void publish_sequence(const PublishParams& params, int64_t entry,
                                                 int64_t b, int lane) {
  const StepEntries& entries = params.entries;
  const int32_t* tokens = params.tokens + params.first_rows[b];
  const int32_t* path = params.path + b * params.max_path;
  const int32_t* end_tokens = params.end_tokens + int64_t{params.slots[b]} * params.num_end_tokens;
  const int64_t row = entry * entries.num_sequences + b;
  int count = params.count[b];
  int root = params.next_root[b];
  for (int base = 0; base < count; base += kWarp) {
    const int i = base + lane;
    int token = -1;
    if (i < count) token = i == count - 1 ? root : tokens[path[i + 1]];
    const unsigned ends =
        __ballot_sync(kAllLanes, i < count && is_end_token(params, end_tokens, token));
    if (ends != 0) {
      const int end_lane = __ffs(static_cast<int>(ends)) - 1;
      root = __shfl_sync(kAllLanes, token, end_lane);
      count = base + end_lane + 1;
    }
    if (i < count) {
      entries.tokens[row * entries.max_path + i] = token;
      entries.paths[row * entries.max_path + i] = path[i];
    }
  }
  __syncwarp();
  if (lane != 0) return;
  params.count[b] = count;
  params.next_root[b] = root;
  entries.counts[row] = count;
}

// Grid (1): the one block owns the step, its warps a sequence at a time.
__global__ void __launch_bounds__(kThreads, 1) publish_kernel(PublishParams params) {
  const int32_t step = *params.step;
  const int32_t entry = step % params.entries.capacity;
  for (int b = static_cast<int>(threadIdx.x) / kWarp; b < params.num_sequences; b += kWarps) {
    publish_sequence(params, entry, b, static_cast<int>(threadIdx.x) % kWarp);
  }
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x == 0) *static_cast<volatile int32_t*>(params.entries.steps + entry) = step;
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t publish(const CudaContext& context, const PublishParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  return launch(publish_kernel, dim3(1), dim3(kThreads), 0, context.stream, params);
}

}  // namespace medusa::cuda
