// Tile sizes and integer dot products for AVX2; dot_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 2;
constexpr int kFloatRows = 6;
constexpr int kQuantizedRows = 4;
constexpr int kWeightOffset = 0;

struct Sums {
  __m256i v;
};

inline Sums broadcast_sums(int32_t value) { return {_mm256_set1_epi32(value)}; }
inline Vec to_vec(Sums sums) { return {_mm256_cvtepi32_ps(sums.v)}; }

inline void load_bfloat16_pairs(const BFloat16* w, Vec& even, Vec& odd) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  even.v = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  odd.v = _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(-65536)));
}

inline __m256i broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return _mm256_set1_epi32(quad);
}

inline __m256i load_weights(const char* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

/// |w| times x with w's sign: a pair of products is at most 2 * 128 * 127 and does not saturate.
template <int kRows>
inline void dot_int8(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int quad = 0; quad < kGroupSize / 4; ++quad) {
    for (int v = 0; v < kPanelVecs; ++v) {
      const __m256i w = load_weights(group + (quad * kPanelVecs + v) * 32);
      const __m256i magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const __m256i signed_x = _mm256_sign_epi8(broadcast_quad(x + r * x_stride + quad * 4), w);
        const __m256i pairs = _mm256_maddubs_epi16(magnitude, signed_x);
        sums[r][v].v = _mm256_add_epi32(sums[r][v].v, _mm256_madd_epi16(pairs, ones));
      }
    }
  }
}

/// Sixteen products of 15 * 127 fit into 16 bits: a whole group is added up before widening.
template <int kRows>
inline void dot_int4(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
  const __m256i mask = _mm256_set1_epi8(0xf);
  __m256i pairs[kRows][kPanelVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kPanelVecs; ++v) pairs[r][v] = _mm256_setzero_si256();
  }
#pragma GCC unroll 4
  for (int quad = 0; quad < kGroupSize / 8; ++quad) {
    for (int v = 0; v < kPanelVecs; ++v) {
      const __m256i bytes = load_weights(group + (quad * kPanelVecs + v) * 32);
      const __m256i low = _mm256_and_si256(bytes, mask);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const int8_t* xq = x + r * x_stride + quad * 4;
        const __m256i low_pairs = _mm256_maddubs_epi16(low, broadcast_quad(xq));
        const __m256i high_pairs = _mm256_maddubs_epi16(high, broadcast_quad(xq + kGroupSize / 2));
        pairs[r][v] = _mm256_add_epi16(pairs[r][v], _mm256_add_epi16(low_pairs, high_pairs));
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kPanelVecs; ++v) {
      const __m256i total = _mm256_madd_epi16(pairs[r][v], _mm256_set1_epi16(1));
      sums[r][v].v = _mm256_add_epi32(sums[r][v].v, total);
    }
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
