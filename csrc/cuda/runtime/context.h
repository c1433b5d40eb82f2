// Where CUDA kernels run and the memory they may use between two of their launches.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/kernel_table.h"
#include "cuda/linear/matrix_product.h"

namespace medusa::cuda {

/// What kernels of one stream share. It owns nothing: the workspace, the matrix-product state and
/// the stream belong to whoever made the context, and outlive it. Nothing in it is read on the
/// device, so it may change between launches, but a captured graph keeps what it was captured with.
struct CudaContext : Context {
  cudaStream_t stream = nullptr;
  int32_t num_multiprocessors = 1;
  /// Fixes whatever else may follow the row count or the device: the algorithm of a matrix product
  /// and the boundaries of attention's splits.
  bool deterministic = false;
  /// Scratch of the kernel that runs, 256-byte aligned; the next one overwrites it. A kernel whose
  /// need (`workspace.h`) is greater returns cudaErrorMemoryAllocation.
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  /// Null where no matrix product is asked for (the operators).
  MatrixProduct* matrix_product = nullptr;
};

inline CudaContext& cuda_context(Context& context) { return static_cast<CudaContext&>(context); }

}  // namespace medusa::cuda
