// The activations that matrix products read, and what they are made of.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/weight_format.h"

namespace medusa {

/// What a product's input is made of: numbers of `type`, int8 ones in groups of consecutive inputs
/// that share a float32 scale. A function of the weights' format that each backend has its own of.
struct ActivationFormat {
  DType type = DType::kFloat32;
  int32_t group = 0;  // values per scale; 0: no scales
};

constexpr bool operator==(const ActivationFormat& a, const ActivationFormat& b) {
  return a.type == b.type && a.group == b.group;
}
constexpr bool operator!=(const ActivationFormat& a, const ActivationFormat& b) {
  return !(a == b);
}

/// Activations [R, K] as a matrix product reads them. Rows never influence each other. The buffer's
/// inner layout belongs to the kernels; `activation_bytes` of the table sizes it.
struct Activations {
  ActivationFormat format;
  int32_t width = 0;     // K
  void* data = nullptr;  // 64-byte aligned
};

}  // namespace medusa
