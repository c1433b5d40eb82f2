// Runtime element types and head sizes to compile-time ones.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "core/dtype.h"

namespace medusa::cuda {

template <typename T>
struct TypeTag {
  using type = T;
};

/// f(TypeTag<T>) for a floating dtype; any other is an error.
template <typename F>
cudaError_t dispatch_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat32:
      return f(TypeTag<float>{});
    case DType::kBFloat16:
      return f(TypeTag<__nv_bfloat16>{});
    case DType::kFloat16:
      return f(TypeTag<__half>{});
    default:
      return cudaErrorInvalidValue;
  }
}

/// f(TypeTag<T>) for a 16-bit dtype, which tensor cores multiply.
template <typename F>
cudaError_t dispatch_half(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kBFloat16:
      return f(TypeTag<__nv_bfloat16>{});
    case DType::kFloat16:
      return f(TypeTag<__half>{});
    default:
      return cudaErrorInvalidValue;
  }
}

/// f(std::integral_constant<int, D>) for a head size that the kernels are built for.
template <typename F>
cudaError_t dispatch_head_size(int head_size, F&& f) {
  switch (head_size) {
    case 64:
      return f(std::integral_constant<int, 64>{});
    case 80:
      return f(std::integral_constant<int, 80>{});
    case 96:
      return f(std::integral_constant<int, 96>{});
    case 128:
      return f(std::integral_constant<int, 128>{});
    case 256:
      return f(std::integral_constant<int, 256>{});
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace medusa::cuda
