// The one way to launch a kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace medusa::cuda {

// Launches `kernel` over `grid` x `block` with `shared_bytes` of dynamic shared memory. The
// error is returned and cleared from the runtime, so that no later check trips over it.
template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Args&&... args) {
  constexpr size_t kDefaultSharedBytes = 48 * 1024;  // more must be asked for
  cudaError_t status = cudaSuccess;
  if (shared_bytes > kDefaultSharedBytes) {
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes));
  }
  if (status == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    status = cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
  }
  if (status != cudaSuccess) cudaGetLastError();
  return status;
}

}  // namespace medusa::cuda
