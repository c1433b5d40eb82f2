// Float32 rows into the form a matrix product reads: a conversion, since the CUDA backend
// multiplies in the weights' own type.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;

struct ConvertArgs {
  int64_t size;
  const float* x;
  void* out;
};

// ---- kernels ----------------------------------------------------------------------------------

// Grid (ceil(size / threads)). A thread owns an element.
template <typename T>
__global__ void __launch_bounds__(kThreads) convert_kernel(ConvertArgs args) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < args.size) static_cast<T*>(args.out)[i] = round_to<T>(args.x[i]);
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t quantize(const CudaContext& context, const QuantizeParams& params) {
  const int64_t size = int64_t{params.num_rows} * params.width;
  if (size == 0) return cudaSuccess;
  const ConvertArgs args = {size, params.x, params.out.data};
  return dispatch_float(params.out.format.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto blocks = static_cast<unsigned>((size + kThreads - 1) / kThreads);
    return launch(convert_kernel<T>, dim3(blocks), dim3(kThreads), 0, context.stream, args);
  });
}

}  // namespace medusa::cuda
