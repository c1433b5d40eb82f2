// The matrix product of the CUDA backend: cuBLASLt, or what a test puts in its place.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "core/dtype.h"

namespace medusa::cuda {

/// out[r, n] = sum_k in[r, k] * weight[n, k], plus out[r, n] as it was when `accumulate`.
struct MatrixProductParams {
  int32_t num_rows = 0;           // R
  int32_t num_outputs = 0;        // N
  int32_t num_inputs = 0;         // K
  DType dtype = DType::kFloat32;  // of `in` and `weight`; sums are float32
  const void* in = nullptr;       // [R, K]
  const void* weight = nullptr;   // [N, K]
  float* out = nullptr;           // [R, N], rows out_stride apart
  int64_t out_stride = 0;
  bool accumulate = false;
  bool deterministic = false;  // one algorithm per (N, K), whatever R
};

class MatrixProduct {
 public:
  virtual ~MatrixProduct() = default;
  /// Enqueues the product; allocates nothing, so that it can be captured. The first call of a
  /// shape chooses its algorithm, so every shape is called once before a capture.
  virtual cudaError_t run(cudaStream_t stream, const MatrixProductParams& params) = 0;
};

/// One per context: it has a workspace of its own. Throws std::runtime_error.
std::unique_ptr<MatrixProduct> make_matrix_product();

}  // namespace medusa::cuda
