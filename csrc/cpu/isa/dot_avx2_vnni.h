// Tile sizes and integer dot products for AVX2 with AVX-VNNI; dot_generic.h documents the
// functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 2;
constexpr int kFloatRows = 6;
constexpr int kQuantizedRows = 4;
constexpr int kWeightOffset = 128;  // vpdpbusd multiplies unsigned by signed bytes

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

template <int kRows>
inline void dot_int8(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
#pragma GCC unroll 8
  for (int quad = 0; quad < kGroupSize / 4; ++quad) {
    __m256i w[kPanelVecs];
    for (int v = 0; v < kPanelVecs; ++v) w[v] = load_weights(group + (quad * kPanelVecs + v) * 32);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m256i xq = broadcast_quad(x + r * x_stride + quad * 4);
      for (int v = 0; v < kPanelVecs; ++v) {
        sums[r][v].v = _mm256_dpbusd_avx_epi32(sums[r][v].v, w[v], xq);
      }
    }
  }
}

template <int kRows>
inline void dot_int4(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
  const __m256i mask = _mm256_set1_epi8(0xf);
#pragma GCC unroll 4
  for (int quad = 0; quad < kGroupSize / 8; ++quad) {
    __m256i low[kPanelVecs], high[kPanelVecs];
    for (int v = 0; v < kPanelVecs; ++v) {
      const __m256i bytes = load_weights(group + (quad * kPanelVecs + v) * 32);
      low[v] = _mm256_and_si256(bytes, mask);
      high[v] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m256i x_low = broadcast_quad(x + r * x_stride + quad * 4);
      const __m256i x_high = broadcast_quad(x + r * x_stride + quad * 4 + kGroupSize / 2);
      for (int v = 0; v < kPanelVecs; ++v) {
        sums[r][v].v = _mm256_dpbusd_avx_epi32(sums[r][v].v, low[v], x_low);
        sums[r][v].v = _mm256_dpbusd_avx_epi32(sums[r][v].v, high[v], x_high);
      }
    }
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
