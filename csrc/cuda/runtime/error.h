// Failed calls of the CUDA runtime as exceptions.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace medusa::cuda {

/// std::runtime_error that names `what` unless `status` is success; the runtime forgets the error.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string("cuda: ") + what + ": " + cudaGetErrorString(status));
}

}  // namespace medusa::cuda
