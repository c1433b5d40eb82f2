#include "model/weight_check.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/checks.h"
#include "core/gguf_blocks.h"

namespace medusa {
namespace {

// Without their sign, the bits of floats are in the order of the magnitudes, infinity and NaN last.

float largest_of(const float* values, int64_t size) {
  int32_t largest = 0;
  for (int64_t i = 0; i < size; ++i) {
    int32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    largest = std::max(largest, bits & 0x7fffffff);
  }
  return bits_to_float(static_cast<uint32_t>(largest));
}

template <typename T>
float largest_of(const T* values, int64_t size) {
  int16_t largest = 0;
  for (int64_t i = 0; i < size; ++i) {
    largest = std::max(largest, static_cast<int16_t>(values[i].bits & 0x7fff));
  }
  return std::fabs(to_float(T{static_cast<uint16_t>(largest)}));
}

/// What the scales allow at most: no weight is larger, NaN where a scale is.
float bound_of_row(SourceType type, const void* row, int32_t num_inputs) {
  const int64_t num_blocks = (int64_t{num_inputs} + kGroupSize - 1) / kGroupSize;
  float bound = 0;
  const auto add = [&](float weight) { bound = weight <= bound ? bound : weight; };
  for (int64_t i = 0; i < num_blocks && !std::isnan(bound); ++i) {
    if (type == SourceType::kQ8_0) {
      add(128 * std::fabs(to_float(static_cast<const BlockQ8_0*>(row)[i].d)));
    } else if (type == SourceType::kQ4_0) {
      add(8 * std::fabs(to_float(static_cast<const BlockQ4_0*>(row)[i].d)));
    } else {
      const BlockQ4_1& block = static_cast<const BlockQ4_1*>(row)[i];
      add(15 * std::fabs(to_float(block.d)) + std::fabs(to_float(block.m)));
    }
  }
  return bound;
}

float largest_of_row(SourceType type, const void* row, int32_t num_inputs, float limit) {
  switch (type) {
    case SourceType::kFloat32:
      return largest_of(static_cast<const float*>(row), num_inputs);
    case SourceType::kBFloat16:
      return largest_of(static_cast<const BFloat16*>(row), num_inputs);
    case SourceType::kFloat16:
      return largest_of(static_cast<const Float16*>(row), num_inputs);
    default:
      break;
  }
  float largest = bound_of_row(type, row, num_inputs);
  if (largest <= limit || !std::isfinite(largest)) return largest;
  largest = 0;  // the scales allow too much: the weights themselves decide
  for (int32_t k = 0; k < num_inputs; ++k) {
    largest = std::max(largest, std::fabs(source_value(type, row, k)));
  }
  return largest;
}

std::string shown(float value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

}  // namespace

void check_weights(const std::string& name, const WeightFormat& format, SourceType type,
                   const void* data, int32_t num_rows, int32_t num_inputs, int64_t row_bytes,
                   int32_t first_row) {
  const float limit = largest_weight(format);
  for (int32_t r = 0; r < num_rows; ++r) {
    const void* row = static_cast<const char*>(data) + r * row_bytes;
    const float largest = largest_of_row(type, row, num_inputs, limit);
    if (largest <= limit) continue;
    const std::string got = shown(largest) + " in row " + std::to_string(first_row + r);
    if (!std::isfinite(largest)) fail(name, "finite weights", got);
    fail(name,
         std::string("weights that ") + weight_format_name(format) + " holds, of at most " +
             shown(limit),
         got);
  }
}

void check_numbers(const std::string& name, const float* data, int64_t size) {
  const float largest = largest_of(data, size);
  if (!std::isfinite(largest)) fail(name, "finite numbers", shown(largest));
}

}  // namespace medusa
