// RMSNorm of float32 rows into the form a matrix product reads, or added to the residual stream.
// (Where no norm follows a product, that adds to the stream itself, Epilogue::kAdd.)
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/launch.cuh"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;

// ---- kernels ----------------------------------------------------------------------------------

// Grid (R). A block owns a row and reads it twice, the second time from the first-level cache.
// With kVector 4 a thread takes four neighbours at once; H is a multiple of kVector.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) rms_norm_kernel(RmsNormParams params) {
  __shared__ float scratch[kThreads / kWarp];
  struct alignas(4 * kVector) Floats {
    float v[kVector];
  };
  struct alignas(sizeof(T) * kVector) Outputs {
    T v[kVector];
  };
  const int64_t offset = int64_t{blockIdx.x} * params.width;
  const float* x = params.x + offset;
  const int first = static_cast<int>(threadIdx.x) * kVector;
  float squares = 0;
  for (int i = first; i < params.width; i += kThreads * kVector) {
    const Floats in = *reinterpret_cast<const Floats*>(x + i);
#pragma unroll
    for (int j = 0; j < kVector; ++j) squares += in.v[j] * in.v[j];
  }
  const float mean = block_sum(squares, scratch) / static_cast<float>(params.width);
  const float scale = rsqrtf(mean + params.epsilon);
  for (int i = first; i < params.width; i += kThreads * kVector) {
    Floats in = *reinterpret_cast<const Floats*>(x + i);
    const Floats weight = *reinterpret_cast<const Floats*>(params.weight + i);
    Outputs out;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      in.v[j] = in.v[j] * scale * weight.v[j];
      out.v[j] = round_to<T>(in.v[j]);
    }
    if (params.add_to != nullptr) {
      Floats* sum = reinterpret_cast<Floats*>(params.add_to + offset + i);
#pragma unroll
      for (int j = 0; j < kVector; ++j) in.v[j] += sum->v[j];
      *sum = in;
      continue;
    }
    if (params.out.data != nullptr) {
      *reinterpret_cast<Outputs*>(static_cast<T*>(params.out.data) + offset + i) = out;
    }
    if (params.out_float != nullptr) {
      *reinterpret_cast<Floats*>(params.out_float + offset + i) = in;
    }
  }
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t rms_norm(const CudaContext& context, const RmsNormParams& params) {
  if (params.num_rows == 0) return cudaSuccess;
  return dispatch_float(params.out.format.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    auto* kernel = params.width % 4 == 0 ? rms_norm_kernel<T, 4> : rms_norm_kernel<T, 1>;
    return launch(kernel, dim3(params.num_rows), dim3(kThreads), 0, context.stream, params);
  });
}

}  // namespace medusa::cuda
