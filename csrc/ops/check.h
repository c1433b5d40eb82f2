// Checks of operator arguments. A failed one is a ValueError `op: argument requirement, got value`.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>

#include "core/dtype.h"

namespace medusa::ops {

/// A tensor argument and what to call it.
struct Argument {
  const char* op;
  const char* name;
  const at::Tensor& tensor;
};

/// Dense and on `device`.
void check_dense(const Argument& argument, c10::Device device);

/// Exactly these sizes; `shape` names them, as "[B, N]".
void check_sizes(const Argument& argument, const char* shape, c10::IntArrayRef sizes);

void check_rank(const Argument& argument, const char* shape, int64_t rank);

/// float32, bfloat16 or float16.
DType check_float(const Argument& argument);

void check_dtype(const Argument& argument, at::ScalarType dtype);

/// An int32 tensor of these sizes on `device`, made contiguous.
at::Tensor check_indices(const Argument& argument, const char* shape, c10::IntArrayRef sizes,
                         c10::Device device);

/// A number from `low` to `high`.
void check_range(const char* op, const char* name, int64_t value, int64_t low, int64_t high);

/// Every value from `low` to `high`; on the host only, since reading a device would stall it:
/// elsewhere the kernels stay inside their buffers whatever the values are.
void check_values(const Argument& argument, int64_t low, int64_t high);

/// [B, N] parents: node 0 is a root, others have an earlier node, or -1: padding.
void check_parents(const Argument& argument);

/// The sampling arguments that several operators share.
void check_sampling(const char* op, double temperature, double top_p, int64_t top_k);

}  // namespace medusa::ops
