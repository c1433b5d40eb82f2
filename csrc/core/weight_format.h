// How the weights of a packed matrix are represented. Where they are in memory is the kernels' own.
#pragma once

#include <cstdint>
#include <cstring>

namespace medusa {

constexpr int kGroupSize = 32;  // weights and activations per quantisation scale

/// A weight as it is stored; kInt4 is an integer from 0 to 15, two to a byte.
enum class WeightType : int32_t { kFloat32, kBFloat16, kFloat16, kInt8, kInt4 };

enum class ScaleType : int32_t { kNone, kFloat16 };

/// Weights of a type, alone or in groups of consecutive inputs of one output that share a scale:
/// w = scale * q, or w = scale * q + minimum. A group's minimum has the type of its scale.
struct WeightFormat {
  WeightType type = WeightType::kFloat32;
  int32_t group = 0;  // weights per scale; 0: no scales
  ScaleType scale = ScaleType::kNone;
  bool has_minimum = false;
};

constexpr bool operator==(const WeightFormat& a, const WeightFormat& b) {
  return a.type == b.type && a.group == b.group && a.scale == b.scale &&
         a.has_minimum == b.has_minimum;
}
constexpr bool operator!=(const WeightFormat& a, const WeightFormat& b) { return !(a == b); }

inline constexpr WeightFormat kFloat32Weights = {WeightType::kFloat32};
inline constexpr WeightFormat kBFloat16Weights = {WeightType::kBFloat16};
inline constexpr WeightFormat kFloat16Weights = {WeightType::kFloat16};
inline constexpr WeightFormat kInt8Weights = {WeightType::kInt8, kGroupSize, ScaleType::kFloat16};
inline constexpr WeightFormat kInt4Weights = {WeightType::kInt4, kGroupSize, ScaleType::kFloat16,
                                              true};

struct NamedWeightFormat {
  const char* name;
  WeightFormat format;
};

/// Every format under its public name; which of them a backend takes, its kernel table says.
inline constexpr NamedWeightFormat kWeightFormats[] = {{"float32", kFloat32Weights},
                                                       {"bfloat16", kBFloat16Weights},
                                                       {"float16", kFloat16Weights},
                                                       {"int8", kInt8Weights},
                                                       {"int4", kInt4Weights}};

inline const char* weight_format_name(const WeightFormat& format) {
  for (const NamedWeightFormat& known : kWeightFormats) {
    if (known.format == format) return known.name;
  }
  return "a format without a name";
}

/// The largest weight that every matrix of a format can hold.
inline float largest_weight(const WeightFormat& format) {
  constexpr float kLargestFloat16 = 65504;
  switch (format.type) {
    case WeightType::kFloat32:
      return 3.40282347e38f;
    case WeightType::kBFloat16:
      return 3.38953139e38f;
    case WeightType::kInt8:
      return 127 * kLargestFloat16;  // 127 steps of a float16 scale
    default:
      return kLargestFloat16;
  }
}

/// Null if there is no format of that name.
inline const WeightFormat* find_weight_format(const char* name) {
  for (const NamedWeightFormat& known : kWeightFormats) {
    if (std::strcmp(known.name, name) == 0) return &known.format;
  }
  return nullptr;
}

}  // namespace medusa
