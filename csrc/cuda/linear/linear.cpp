// A linear layer: its matrix product, then what its epilogue asks for.
#include <algorithm>

#include "cuda/linear/linear_epilogue.h"
#include "cuda/linear/pack.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/workspace.h"
#include "cuda/sampling/row_reduction.h"

namespace medusa::cuda {
namespace {

/// A row of the product before its epilogue, and of the arg-max's partial results.
int64_t scratch_row_bytes(const LinearParams& params) {
  const int32_t num_outputs = params.weight->num_outputs;
  switch (params.epilogue) {
    case Epilogue::kStore:
    case Epilogue::kAdd:
      return 0;
    case Epilogue::kSiluMul:
    case Epilogue::kSiluAdd:
      return aligned_bytes(num_outputs * int64_t{4});
    case Epilogue::kArgmax:
      return aligned_bytes(num_outputs * int64_t{4}) +
             aligned_bytes(row_reduction_bytes(1, num_outputs));
  }
  return 0;
}

/// Rows first … first + count - 1 of a layer.
struct RowSlice {
  int32_t first;
  int32_t count;
};

const void* row_of(const void* rows, DType dtype, int64_t row, int64_t width) {
  return static_cast<const unsigned char*>(rows) + row * width * dtype_bytes(dtype);
}

cudaError_t multiply(const CudaContext& context, const LinearParams& params, RowSlice slice,
                     float* out, int64_t out_stride, bool accumulate) {
  const PackedMatrix& weight = *params.weight;
  MatrixProductParams product;
  product.num_rows = slice.count;
  product.num_outputs = weight.num_outputs;
  product.num_inputs = weight.num_inputs;
  product.dtype = element_type(weight.format);
  product.in = row_of(params.in.data, product.dtype, slice.first, weight.num_inputs);
  product.weight = weight.data;
  product.out = out;
  product.out_stride = out_stride;
  product.accumulate = accumulate;
  product.deterministic = context.deterministic;
  return context.matrix_product->run(context.stream, product);
}

/// kStore and kAdd: the product adds to what is there, the bias or the residual stream.
cudaError_t multiply_into_out(const CudaContext& context, const LinearParams& params) {
  const bool adds = params.epilogue == Epilogue::kAdd;
  if (params.bias != nullptr) {
    const AddBiasParams bias = {params.num_rows, params.weight->num_outputs, params.bias,
                                params.out,      params.out_stride,          adds};
    const cudaError_t status = add_bias(context, bias);
    if (status != cudaSuccess) return status;
  }
  return multiply(context, params, {0, params.num_rows}, params.out, params.out_stride,
                  adds || params.bias != nullptr);
}

cudaError_t finish_silu(const CudaContext& context, const LinearParams& params, RowSlice slice,
                        const float* scratch) {
  const bool multiplies = params.epilogue == Epilogue::kSiluMul;
  SiluParams silu;
  silu.num_rows = slice.count;
  silu.width = multiplies ? params.weight->num_outputs / 2 : params.weight->num_outputs;
  silu.in = scratch;
  silu.bias = params.bias;
  silu.out = params.out != nullptr ? params.out + slice.first * params.out_stride : nullptr;
  silu.out_stride = params.out_stride;
  silu.out_activations = params.out_activations;
  if (multiplies && params.out_activations.data != nullptr) {
    silu.out_activations.data = const_cast<void*>(row_of(
        params.out_activations.data, params.out_activations.format.type, slice.first, silu.width));
  }
  return multiplies ? silu_mul(context, silu) : silu_add(context, silu);
}

cudaError_t finish_argmax(const CudaContext& context, const LinearParams& params, RowSlice slice,
                          float* scratch, void* partials) {
  const int32_t num_outputs = params.weight->num_outputs;
  if (params.bias != nullptr) {
    const AddBiasParams bias = {slice.count, num_outputs, params.bias, scratch, num_outputs, true};
    const cudaError_t status = add_bias(context, bias);
    if (status != cudaSuccess) return status;
  }
  RowReductionParams reduction;
  reduction.rows = {slice.count, num_outputs, DType::kFloat32, scratch, num_outputs, nullptr};
  reduction.out = params.argmax + slice.first;
  reduction.max_value = params.max_value != nullptr ? params.max_value + slice.first : nullptr;
  reduction.partials = partials;
  return reduce_rows(context, RowReduction::kArgmax, reduction);
}

}  // namespace

int64_t min_workspace_bytes(const LinearParams& params) { return scratch_row_bytes(params); }

/// Layers that need scratch run as many rows at a time as the workspace holds.
cudaError_t linear(const CudaContext& context, const LinearParams& params) {
  if (params.num_rows == 0) return cudaSuccess;
  if (params.in.format != activation_format(params.weight->format)) return cudaErrorInvalidValue;
  const int64_t row_bytes = scratch_row_bytes(params);
  if (row_bytes == 0) return multiply_into_out(context, params);
  const auto rows_at_once =
      static_cast<int32_t>(std::min<int64_t>(params.num_rows, context.workspace_bytes / row_bytes));
  if (rows_at_once == 0) return cudaErrorMemoryAllocation;

  const int32_t num_outputs = params.weight->num_outputs;
  Workspace workspace(context.workspace);
  auto* scratch = workspace.take<float>(int64_t{rows_at_once} * num_outputs);
  for (int32_t first = 0; first < params.num_rows; first += rows_at_once) {
    const RowSlice slice = {first, std::min(rows_at_once, params.num_rows - first)};
    cudaError_t status = multiply(context, params, slice, scratch, num_outputs, false);
    if (status != cudaSuccess) return status;
    status = params.epilogue == Epilogue::kArgmax
                 ? finish_argmax(context, params, slice, scratch, workspace.rest())
                 : finish_silu(context, params, slice, scratch);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace medusa::cuda
