// What a linear layer does after its matrix product.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/packed_matrix.h"
#include "cuda/runtime/context.h"

namespace medusa::cuda {

/// out[r, n] = bias[n], or += bias[n] when `accumulate`.
struct AddBiasParams {
  int32_t num_rows = 0;         // R
  int32_t num_outputs = 0;      // N
  const float* bias = nullptr;  // [N]
  float* out = nullptr;         // [R, N], rows out_stride apart
  int64_t out_stride = 0;
  bool accumulate = false;
};
cudaError_t add_bias(const CudaContext& context, const AddBiasParams& params);

/// kSiluMul: out[r, f] = silu(in[r, f]) * in[r, F + f]; kSiluAdd: out[r, n] += silu(in[r, n]).
struct SiluParams {
  int32_t num_rows = 0;         // R
  int32_t width = 0;            // F or N, of the output
  const float* in = nullptr;    // [R, 2F] or [R, N]
  const float* bias = nullptr;  // [2F] or [N], added to `in`, or null
  float* out = nullptr;         // rows out_stride apart
  int64_t out_stride = 0;
  Activations out_activations;  // kSiluMul: written instead of `out` when its data is set
};
cudaError_t silu_mul(const CudaContext& context, const SiluParams& params);
cudaError_t silu_add(const CudaContext& context, const SiluParams& params);

}  // namespace medusa::cuda
