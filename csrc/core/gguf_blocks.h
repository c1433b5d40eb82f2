// The blocks of 32 weights in GGUF files, byte for byte, and how source weights become float32.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/source_type.h"

namespace medusa {

/// w = d * q
struct BlockQ8_0 {
  Float16 d;
  int8_t q[kGroupSize];
};

/// w = d * (q - 8)
struct BlockQ4_0 {
  Float16 d;
  uint8_t q[kGroupSize / 2];
};

/// w = d * q + m
struct BlockQ4_1 {
  Float16 d;
  Float16 m;
  uint8_t q[kGroupSize / 2];
};

static_assert(sizeof(BlockQ8_0) == source_row_bytes(SourceType::kQ8_0, kGroupSize));
static_assert(sizeof(BlockQ4_0) == source_row_bytes(SourceType::kQ4_0, kGroupSize));
static_assert(sizeof(BlockQ4_1) == source_row_bytes(SourceType::kQ4_1, kGroupSize));

/// Weight j (0 … 31) of 16 packed bytes: the low halves are 0 … 15, the high ones 16 … 31.
inline int nibble(const uint8_t* q, int j) { return j < 16 ? q[j] & 0xf : q[j - 16] >> 4; }

/// Element k of a row-major source row, as float32.
inline float source_value(SourceType type, const void* row, int64_t k) {
  const int64_t block = k / kGroupSize;
  const int j = static_cast<int>(k % kGroupSize);
  switch (type) {
    case SourceType::kFloat32:
      return static_cast<const float*>(row)[k];
    case SourceType::kBFloat16:
      return to_float(static_cast<const BFloat16*>(row)[k]);
    case SourceType::kFloat16:
      return to_float(static_cast<const Float16*>(row)[k]);
    case SourceType::kQ8_0: {
      const BlockQ8_0& b = static_cast<const BlockQ8_0*>(row)[block];
      return to_float(b.d) * static_cast<float>(b.q[j]);
    }
    case SourceType::kQ4_0: {
      const BlockQ4_0& b = static_cast<const BlockQ4_0*>(row)[block];
      return to_float(b.d) * static_cast<float>(nibble(b.q, j) - 8);
    }
    case SourceType::kQ4_1: {
      const BlockQ4_1& b = static_cast<const BlockQ4_1*>(row)[block];
      return to_float(b.d) * static_cast<float>(nibble(b.q, j)) + to_float(b.m);
    }
  }
  return 0;
}

}  // namespace medusa
