// How weights are stored in checkpoints, and by which name a loader hands them over.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/weight_format.h"

namespace medusa {

/// Row-major numbers, or GGUF's blocks of 32 weights of a row (core/gguf_blocks.h).
enum class SourceType : int32_t { kFloat32, kBFloat16, kFloat16, kQ8_0, kQ4_0, kQ4_1 };

struct NamedSourceType {
  const char* name;  // GGML's
  SourceType type;
  int32_t weights;  // of a block
  int32_t bytes;    // of a block
};

/// In the order of the enumeration.
inline constexpr NamedSourceType kSourceTypes[] = {
    {"F32", SourceType::kFloat32, 1, 4},         {"BF16", SourceType::kBFloat16, 1, 2},
    {"F16", SourceType::kFloat16, 1, 2},         {"Q8_0", SourceType::kQ8_0, kGroupSize, 34},
    {"Q4_0", SourceType::kQ4_0, kGroupSize, 18}, {"Q4_1", SourceType::kQ4_1, kGroupSize, 20}};

/// Null if there is no type of that name.
inline const NamedSourceType* find_source_type(const char* name) {
  for (const NamedSourceType& known : kSourceTypes) {
    if (std::strcmp(known.name, name) == 0) return &known;
  }
  return nullptr;
}

/// Bytes of `num_inputs` weights of a row; the last block is whole.
constexpr int64_t source_row_bytes(SourceType type, int32_t num_inputs) {
  const NamedSourceType& known = kSourceTypes[static_cast<int>(type)];
  return (int64_t{num_inputs} + known.weights - 1) / known.weights * known.bytes;
}

}  // namespace medusa
