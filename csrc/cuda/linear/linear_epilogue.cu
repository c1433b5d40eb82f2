// Bias, SiLU·mul and SiLU·add after a matrix product.
#include "cuda/linear/linear_epilogue.h"
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;

// ---- kernels ----------------------------------------------------------------------------------
// Grid (ceil(width / threads), R). A thread owns one output.

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

__global__ void __launch_bounds__(kThreads) add_bias_kernel(AddBiasParams params) {
  const int n = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (n >= params.num_outputs) return;
  float& out = params.out[int64_t{blockIdx.y} * params.out_stride + n];
  out = params.bias[n] + (params.accumulate ? out : 0.0f);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(SiluParams params) {
  const int f = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (f >= params.width) return;
  const int64_t row = blockIdx.y;
  float gate = params.in[row * 2 * params.width + f];
  float up = params.in[(row * 2 + 1) * params.width + f];
  if (params.bias != nullptr) {
    gate += params.bias[f];
    up += params.bias[params.width + f];
  }
  const float value = silu(gate) * up;
  if (params.out_activations.data != nullptr) {
    static_cast<T*>(params.out_activations.data)[row * params.width + f] = round_to<T>(value);
  } else {
    params.out[row * params.out_stride + f] = value;
  }
}

__global__ void __launch_bounds__(kThreads) silu_add_kernel(SiluParams params) {
  const int n = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (n >= params.width) return;
  const int64_t row = blockIdx.y;
  const float bias = params.bias != nullptr ? params.bias[n] : 0.0f;
  params.out[row * params.out_stride + n] += silu(params.in[row * params.width + n] + bias);
}

dim3 element_grid(int width, int num_rows) {
  return dim3((width + kThreads - 1) / kThreads, num_rows);
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t add_bias(const CudaContext& context, const AddBiasParams& params) {
  return launch(add_bias_kernel, element_grid(params.num_outputs, params.num_rows), dim3(kThreads),
                0, context.stream, params);
}

cudaError_t silu_mul(const CudaContext& context, const SiluParams& params) {
  return dispatch_float(params.out_activations.format.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return launch(silu_mul_kernel<T>, element_grid(params.width, params.num_rows), dim3(kThreads),
                  0, context.stream, params);
  });
}

cudaError_t silu_add(const CudaContext& context, const SiluParams& params) {
  return launch(silu_add_kernel, element_grid(params.width, params.num_rows), dim3(kThreads), 0,
                context.stream, params);
}

}  // namespace medusa::cuda
