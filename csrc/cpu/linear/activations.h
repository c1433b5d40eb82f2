// The layout of Activations on the CPU: rows that stand alone, one after the other.
#pragma once

#include <cstdint>

#include "core/activations.h"
#include "core/weight_format.h"

namespace medusa::cpu {

/// Where sums of the integer dot products start that instruction sets read without converting them:
/// the bits of the float 1.5 * 2^23. Adding an integer below 2^22 to the bits adds it to the float,
/// and a group's sum is at most 32 * 128 * 127.
inline constexpr int32_t kSumStart = 0x4b400000;
inline constexpr float kSumStartValue = 12582912.0f;

/// One row of int8 activations. Group g holds values 32g … 32g+31; padding after the width is 0.
struct Int8Row {
  int8_t* values;      // [groups * 32]
  float* scales;       // [groups], x = value * scale
  int32_t* starts;     // [groups], kSumStart - 128 * sum(values): for weights stored with 128 added
  float* scaled_sums;  // [groups], scale * sum(values): what a weight's minimum is multiplied by
};

inline constexpr ActivationFormat kFloatActivations = {DType::kFloat32};
inline constexpr ActivationFormat kInt8Activations = {DType::kInt8, kGroupSize};

/// Weights in groups are multiplied as integers, all others as float32.
inline ActivationFormat activation_format(const WeightFormat& format) {
  return format.group > 0 ? kInt8Activations : kFloatActivations;
}

inline int32_t num_groups(int32_t width) { return (width + kGroupSize - 1) / kGroupSize; }

/// Bytes from one row to the next. Every row starts on a cache line, and one line more than the
/// row needs keeps rows of 4 KiB multiples out of each other's cache sets.
inline int64_t activation_row_bytes(const ActivationFormat& format, int32_t width) {
  const int64_t payload =
      format.group > 0 ? int64_t{num_groups(width)} * (kGroupSize + 12) : int64_t{width} * 4;
  return (payload + 63) / 64 * 64 + 64;
}

inline int64_t activation_buffer_bytes(const ActivationFormat& format, int32_t num_rows,
                                       int32_t width) {
  return num_rows * activation_row_bytes(format, width);
}

inline float* float_row(const Activations& activations, int64_t row) {
  return reinterpret_cast<float*>(static_cast<char*>(activations.data) +
                                  row * activation_row_bytes(kFloatActivations, activations.width));
}

inline Int8Row int8_row(const Activations& activations, int64_t row) {
  char* start = static_cast<char*>(activations.data) +
                row * activation_row_bytes(kInt8Activations, activations.width);
  const int64_t groups = num_groups(activations.width);
  return {reinterpret_cast<int8_t*>(start), reinterpret_cast<float*>(start + groups * kGroupSize),
          reinterpret_cast<int32_t*>(start + groups * (kGroupSize + 4)),
          reinterpret_cast<float*>(start + groups * (kGroupSize + 8))};
}

}  // namespace medusa::cpu
