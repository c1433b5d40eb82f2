// Element types, their sizes, and portable 16-bit float conversions.
#pragma once

#include <cstdint>
#include <cstring>

namespace medusa {

/// How a number of a KV cache, of activations or of logits is stored; weights have formats of their
/// own (core/weight_format.h). All arithmetic on the CPU is float32 or exact integer.
enum class DType : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kInt8 = 3 };

constexpr int kNumDTypes = 4;

inline const char* dtype_name(DType dtype) {
  constexpr const char* kNames[kNumDTypes] = {"float32", "bfloat16", "float16", "int8"};
  return kNames[static_cast<int>(dtype)];
}

inline int64_t dtype_bytes(DType dtype) {
  constexpr int64_t kBytes[kNumDTypes] = {4, 2, 2, 1};
  return kBytes[static_cast<int>(dtype)];
}

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float to_float(float value) { return value; }

inline float to_float(BFloat16 value) { return bits_to_float(uint32_t{value.bits} << 16); }

/// Exact for every float16, subnormals, infinities and NaN included.
inline float to_float(Float16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // Scaling by 2^112 moves the exponent bias from 15 to 127 and normalises subnormals.
  const float scaled = bits_to_float(magnitude << 13) * 5192296858534827628530496329220096.0f;
  return bits_to_float(float_to_bits(scaled) | sign);
}

template <typename T>
T from_float(float value);

template <>
inline float from_float<float>(float value) {
  return value;
}

/// Round to nearest, ties to even; NaN stays NaN.
template <>
inline BFloat16 from_float<BFloat16>(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

/// Round to nearest, ties to even; too large becomes infinity; NaN stays NaN.
template <>
inline Float16 from_float<Float16>(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // Adding 0.5 aligns the subnormal's unit (2^-24) with the last mantissa bit of a float32.
    const float shifted = bits_to_float(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (float_to_bits(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u;
  return {static_cast<uint16_t>(sign | rounded >> 13)};
}

}  // namespace medusa
