// Embedding rows of the tokens, as float32.
#include "cuda/linear/pack.h"
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;

struct EmbedArgs {
  int32_t width;          // H
  const int32_t* tokens;  // [R]
  const void* table;      // [V, H]
  float* out;             // [R, H]
};

// ---- kernels ----------------------------------------------------------------------------------

// Grid (R). A block owns a row, its threads strips of H. A negative token (padding) gives zeros.
template <typename T>
__global__ void __launch_bounds__(kThreads) embed_kernel(EmbedArgs args) {
  const int64_t row = blockIdx.x;
  const int32_t token = args.tokens[row];
  float* out = args.out + row * args.width;
  const T* from = static_cast<const T*>(args.table) + int64_t{token} * args.width;
  for (int i = static_cast<int>(threadIdx.x); i < args.width; i += kThreads) {
    out[i] = token < 0 ? 0.0f : to_float(from[i]);
  }
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t embed(const CudaContext& context, const EmbedParams& params) {
  if (params.num_rows == 0) return cudaSuccess;
  const EmbedArgs args = {params.table->num_inputs, params.tokens, params.table->data, params.out};
  return dispatch_float(element_type(params.table->format), [&](auto tag) {
    using T = typename decltype(tag)::type;
    return launch(embed_kernel<T>, dim3(params.num_rows), dim3(kThreads), 0, context.stream, args);
  });
}

}  // namespace medusa::cuda
