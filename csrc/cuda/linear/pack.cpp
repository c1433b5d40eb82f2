#include "cuda/linear/pack.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/gguf_blocks.h"

namespace medusa::cuda {
namespace {

constexpr int64_t kStagingBytes = int64_t{16} << 20;

template <typename T>
void write_row(const std::vector<float>& row, unsigned char* out) {
  for (size_t i = 0; i < row.size(); ++i) {
    const T value = from_float<T>(row[i]);
    std::memcpy(out + i * sizeof value, &value, sizeof value);
  }
}

void convert_row(const PackParams& params, int32_t index, std::vector<float>& row,
                 unsigned char* out) {
  const auto* source = static_cast<const unsigned char*>(params.source);
  for (size_t k = 0; k < row.size(); ++k) {
    row[k] = source_value(params.source_type, source + index * params.source_stride,
                          static_cast<int64_t>(k));
  }
  switch (element_type(params.matrix->format)) {
    case DType::kBFloat16:
      return write_row<BFloat16>(row, out);
    case DType::kFloat16:
      return write_row<Float16>(row, out);
    default:
      return write_row<float>(row, out);
  }
}

}  // namespace

bool supports(const WeightFormat& format) {
  return format == kFloat32Weights || format == kBFloat16Weights || format == kFloat16Weights;
}

DType element_type(const WeightFormat& format) {
  if (format == kFloat32Weights) return DType::kFloat32;
  if (format == kBFloat16Weights) return DType::kBFloat16;
  if (format == kFloat16Weights) return DType::kFloat16;
  throw std::runtime_error(std::string("cuda: weight format: float32, bfloat16 or float16, got ") +
                           weight_format_name(format));
}

int64_t packed_bytes(const WeightFormat& format, int32_t num_outputs, int32_t num_inputs) {
  return int64_t{num_outputs} * num_inputs * dtype_bytes(element_type(format));
}

void pack(const PackParams& params) {
  const PackedMatrix& matrix = *params.matrix;
  const int64_t row_bytes = matrix.num_inputs * dtype_bytes(element_type(matrix.format));
  const auto rows_at_once = static_cast<int32_t>(
      std::clamp<int64_t>(kStagingBytes / std::max<int64_t>(row_bytes, 1), 1, params.num_rows));
  std::vector<float> row(static_cast<size_t>(matrix.num_inputs));
  std::vector<unsigned char> staging(static_cast<size_t>(rows_at_once * row_bytes));
  auto* to = static_cast<unsigned char*>(matrix.data) + params.first_output * row_bytes;
  for (int32_t first = 0; first < params.num_rows; first += rows_at_once) {
    const int32_t count = std::min(rows_at_once, params.num_rows - first);
    for (int32_t i = 0; i < count; ++i) {
      convert_row(params, first + i, row, staging.data() + i * row_bytes);
    }
    const cudaError_t status =
        cudaMemcpy(to + first * row_bytes, staging.data(), static_cast<size_t>(count * row_bytes),
                   cudaMemcpyHostToDevice);
    if (status != cudaSuccess) {
      throw std::runtime_error(std::string("cuda: pack: ") + cudaGetErrorString(status));
    }
  }
}

int64_t activation_bytes(const ActivationFormat& format, int32_t num_rows, int32_t width) {
  return int64_t{num_rows} * width * dtype_bytes(format.type);
}

ActivationFormat activation_format(const WeightFormat& format) { return {element_type(format)}; }

}  // namespace medusa::cuda
