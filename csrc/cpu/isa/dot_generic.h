// Tile sizes and integer dot products for any machine; the other dot_*.h have the same functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 2;      // vectors of outputs in a panel
constexpr int kFloatRows = 4;      // most rows of a float tile
constexpr int kQuantizedRows = 4;  // most rows of an int8 or int4 tile
constexpr int kWeightOffset = 0;   // added to stored int8 weights

/// Integer sums of Vec::kSize outputs.
struct Sums {
  int32_t lane[Vec::kSize];
};

inline Sums broadcast_sums(int32_t value) {
  Sums out;
  for (int32_t& lane : out.lane) lane = value;
  return out;
}

inline Vec to_vec(const Sums& sums) { return load(sums.lane); }

/// 2 * kSize words of an even and an odd input each, as float32.
inline void load_bfloat16_pairs(const BFloat16* w, Vec& even, Vec& odd) {
  for (int i = 0; i < Vec::kSize; ++i) {
    even.lane[i] = to_float(w[2 * i]);
    odd.lane[i] = to_float(w[2 * i + 1]);
  }
}

/// sums[r][v] += the 32 products of an int8 group for each output; x rows are x_stride bytes apart.
template <int kRows>
inline void dot_int8(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
  const auto* w = reinterpret_cast<const int8_t*>(group);
  for (int quad = 0; quad < kGroupSize / 4; ++quad) {
    for (int n = 0; n < kPanelVecs * Vec::kSize; ++n, w += 4) {
      for (int r = 0; r < kRows; ++r) {
        const int8_t* xq = x + r * x_stride + quad * 4;
        sums[r][n / Vec::kSize].lane[n % Vec::kSize] +=
            w[0] * xq[0] + w[1] * xq[1] + w[2] * xq[2] + w[3] * xq[3];
      }
    }
  }
}

/// The same for an int4 group, without its scales and minima.
template <int kRows>
inline void dot_int4(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
  const auto* w = reinterpret_cast<const uint8_t*>(group);
  for (int quad = 0; quad < kGroupSize / 8; ++quad) {
    for (int n = 0; n < kPanelVecs * Vec::kSize; ++n, w += 4) {
      for (int r = 0; r < kRows; ++r) {
        const int8_t* low = x + r * x_stride + quad * 4;
        const int8_t* high = low + kGroupSize / 2;
        int32_t sum = 0;
        for (int j = 0; j < 4; ++j) sum += (w[j] & 0xf) * low[j] + (w[j] >> 4) * high[j];
        sums[r][n / Vec::kSize].lane[n % Vec::kSize] += sum;
      }
    }
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
