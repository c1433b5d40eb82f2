// The copies around Medusa heads: which hidden state they read, and in what form.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;

// ---- kernels ----------------------------------------------------------------------------------

// Grid (B'). A block owns a sequence's hidden state. A sequence with count 0 keeps its old one.
__global__ void __launch_bounds__(kThreads) gather_hidden_kernel(GatherHiddenParams params) {
  const int64_t b = blockIdx.x;
  const int32_t count = params.count[b];
  if (count <= 0) return;
  const int64_t row = params.first_rows[b] + params.path[b * params.max_path + count - 1];
  const float* from = params.hidden + row * params.width;
  float* out = params.out + int64_t{params.slots[b]} * params.width;
  for (int i = static_cast<int>(threadIdx.x); i < params.width; i += kThreads) out[i] = from[i];
}

// Grid (B'). A block owns a sequence. An embedding of zeros stays zeros.
__global__ void __launch_bounds__(kThreads) head_inputs_kernel(HeadInputsParams params) {
  __shared__ float scratch[2][kThreads / kWarp];
  const int64_t b = blockIdx.x;
  const int width = params.width;
  const float* x = params.hidden + int64_t{params.slots[b]} * width;
  const bool has_root = params.root_embedding != nullptr;
  const float* e = has_root ? params.root_embedding + b * width : x;
  float* input = params.inputs + b * width * (has_root ? 2 : 1);
  float* blocks = params.blocks + b * params.num_heads * width;

  float x_squares = 0, e_squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kThreads) {
    x_squares += x[i] * x[i];
    e_squares += e[i] * e[i];
    input[i] = x[i];
    for (int k = 0; k < params.num_heads; ++k) blocks[int64_t{k} * width + i] = x[i];
  }
  if (!has_root) return;
  x_squares = block_sum(x_squares, scratch[0]);
  e_squares = block_sum(e_squares, scratch[1]);
  const float scale = e_squares > 0 ? sqrtf(x_squares / e_squares) : 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kThreads) {
    input[width + i] = e[i] * scale;
  }
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t gather_hidden(const CudaContext& context, const GatherHiddenParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  return launch(gather_hidden_kernel, dim3(params.num_sequences), dim3(kThreads), 0, context.stream,
                params);
}

cudaError_t head_inputs(const CudaContext& context, const HeadInputsParams& params) {
  if (params.num_sequences == 0) return cudaSuccess;
  return launch(head_inputs_kernel, dim3(params.num_sequences), dim3(kThreads), 0, context.stream,
                params);
}

}  // namespace medusa::cuda
