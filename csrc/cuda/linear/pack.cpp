#include "cuda/linear/pack.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace medusa::cuda {
namespace {

constexpr int64_t kStagingBytes = int64_t{16} << 20;

void check_format(DType format) {
  if (format == DType::kFloat32 || format == DType::kBFloat16 || format == DType::kFloat16) return;
  throw std::runtime_error(std::string("cuda: weight format: float32, bfloat16 or float16, got ") +
                           dtype_name(format));
}

Float16 read_half(const unsigned char* from) {
  Float16 value;
  std::memcpy(&value.bits, from, sizeof value.bits);
  return value;
}

/// One block of 32 weights as GGUF stores it (core/packed_matrix.h); returns its bytes.
int64_t unpack_block(SourceType type, const unsigned char* block, float* out) {
  const float scale = to_float(read_half(block));
  if (type == SourceType::kQ8_0) {
    for (int i = 0; i < kGroupSize; ++i) {
      out[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
    }
    return 2 + kGroupSize;
  }
  const bool has_min = type == SourceType::kQ4_1;
  const float min = has_min ? to_float(read_half(block + 2)) : -8 * scale;
  const unsigned char* nibbles = block + (has_min ? 4 : 2);
  for (int i = 0; i < kGroupSize / 2; ++i) {
    out[i] = scale * static_cast<float>(nibbles[i] & 15) + min;
    out[i + kGroupSize / 2] = scale * static_cast<float>(nibbles[i] >> 4) + min;
  }
  return (has_min ? 4 : 2) + kGroupSize / 2;
}

template <typename T>
void read_elements(const unsigned char* source, int32_t width, float* out) {
  for (int32_t i = 0; i < width; ++i) {
    T value;
    std::memcpy(&value, source + int64_t{i} * static_cast<int64_t>(sizeof(T)), sizeof value);
    out[i] = to_float(value);
  }
}

void read_row(SourceType type, const unsigned char* source, int32_t width, float* out) {
  switch (type) {
    case SourceType::kFloat32:
      return read_elements<float>(source, width, out);
    case SourceType::kBFloat16:
      return read_elements<BFloat16>(source, width, out);
    case SourceType::kFloat16:
      return read_elements<Float16>(source, width, out);
    case SourceType::kQ8_0:
    case SourceType::kQ4_0:
    case SourceType::kQ4_1:
      for (int32_t i = 0; i < width; i += kGroupSize) source += unpack_block(type, source, out + i);
  }
}

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
  read_row(params.source_type, source + index * params.source_stride, params.matrix->num_inputs,
           row.data());
  switch (params.matrix->format) {
    case DType::kBFloat16:
      return write_row<BFloat16>(row, out);
    case DType::kFloat16:
      return write_row<Float16>(row, out);
    default:
      return write_row<float>(row, out);
  }
}

}  // namespace

int64_t packed_bytes(DType format, int32_t num_outputs, int32_t num_inputs) {
  check_format(format);
  return int64_t{num_outputs} * num_inputs * dtype_bytes(format);
}

void pack(const PackParams& params) {
  const PackedMatrix& matrix = *params.matrix;
  check_format(matrix.format);
  const int64_t row_bytes = matrix.num_inputs * dtype_bytes(matrix.format);
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

int64_t activation_bytes(DType format, int32_t num_rows, int32_t width) {
  return int64_t{num_rows} * width * dtype_bytes(format);
}

DType activation_format(DType weight_format) {
  check_format(weight_format);
  return weight_format;
}

}  // namespace medusa::cuda
