#include "ops/check.h"

#include <c10/util/Exception.h>

#include <limits>

#include "core/params/sampling.h"

namespace medusa::ops {

#define MEDUSA_CHECK(argument, condition, ...) \
  TORCH_CHECK_VALUE(condition, (argument).op, ": ", (argument).name, " ", __VA_ARGS__)

void check_dense(const Argument& argument, c10::Device device) {
  const at::Tensor& tensor = argument.tensor;
  MEDUSA_CHECK(argument, tensor.defined(), "must be a tensor, got none");
  MEDUSA_CHECK(argument, tensor.layout() == at::kStrided, "must be dense, got ", tensor.layout());
  MEDUSA_CHECK(argument, tensor.device() == device, "must be on ", device, ", got ",
               tensor.device());
  MEDUSA_CHECK(argument, !tensor.is_neg() && !tensor.is_conj(),
               "must be a plain tensor, got a negated or conjugate view");
}

void check_rank(const Argument& argument, const char* shape, int64_t rank) {
  MEDUSA_CHECK(argument, argument.tensor.dim() == rank, "must be ", shape, ", got ",
               argument.tensor.sizes());
}

void check_sizes(const Argument& argument, const char* shape, c10::IntArrayRef sizes) {
  MEDUSA_CHECK(argument, argument.tensor.sizes() == sizes, "must be ", shape, " = ", sizes,
               ", got ", argument.tensor.sizes());
}

void check_dtype(const Argument& argument, at::ScalarType dtype) {
  MEDUSA_CHECK(argument, argument.tensor.scalar_type() == dtype, "must be ", dtype, ", got ",
               argument.tensor.scalar_type());
}

DType check_float(const Argument& argument) {
  switch (argument.tensor.scalar_type()) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kHalf:
      return DType::kFloat16;
    default:
      MEDUSA_CHECK(argument, false, "must be Float, BFloat16 or Half, got ",
                   argument.tensor.scalar_type());
  }
}

at::Tensor check_indices(const Argument& argument, const char* shape, c10::IntArrayRef sizes,
                         c10::Device device) {
  check_dense(argument, device);
  check_dtype(argument, at::kInt);
  check_sizes(argument, shape, sizes);
  return argument.tensor.contiguous();
}

void check_range(const char* op, const char* name, int64_t value, int64_t low, int64_t high) {
  TORCH_CHECK_VALUE(low <= value && value <= high, op, ": ", name, " must be from ", low, " to ",
                    high, ", got ", value);
}

void check_values(const Argument& argument, int64_t low, int64_t high) {
  if (!argument.tensor.is_cpu()) return;
  const at::Tensor values = argument.tensor.contiguous();
  const int32_t* data = values.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    MEDUSA_CHECK(argument, low <= data[i] && data[i] <= high, "must be from ", low, " to ", high,
                 ", got ", data[i]);
  }
}

void check_parents(const Argument& argument) {
  if (!argument.tensor.is_cpu()) return;
  const at::Tensor parents = argument.tensor.contiguous();
  const int32_t* data = parents.const_data_ptr<int32_t>();
  const int64_t num_nodes = parents.size(1);
  for (int64_t i = 0; i < parents.numel(); ++i) {
    const int64_t node = i % num_nodes;
    MEDUSA_CHECK(argument, data[i] >= -1 && data[i] < node, "must be -1 or an earlier node, got ",
                 data[i], " for node ", node);
  }
}

void check_sampling(const char* op, double temperature, double top_p, int64_t top_k) {
  // As the kernels see it: a float32.
  const float rounded = static_cast<float>(temperature);
  TORCH_CHECK_VALUE(rounded >= kLeastTemperature && rounded <= std::numeric_limits<float>::max(),
                    op, ": temperature must be positive and finite, got ", temperature);
  TORCH_CHECK_VALUE(top_p > 0 && top_p <= 1, op, ": top_p must be above 0 and at most 1, got ",
                    top_p);
  check_range(op, "top_k", top_k, 0, std::numeric_limits<int32_t>::max());
}

}  // namespace medusa::ops
