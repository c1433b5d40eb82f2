// Tile sizes and integer dot products for AVX-512 VNNI; dot_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 2;
constexpr int kFloatRows = 12;
constexpr int kQuantizedRows = 4;
constexpr int kWeightOffset = 128;  // vpdpbusd multiplies unsigned by signed bytes

struct Sums {
  __m512i v;
};

inline Sums broadcast_sums(int32_t value) { return {_mm512_set1_epi32(value)}; }
inline Vec to_vec(Sums sums) { return {_mm512_cvtepi32_ps(sums.v)}; }

inline void load_bfloat16_pairs(const BFloat16* w, Vec& even, Vec& odd) {
  const __m512i words = _mm512_loadu_si512(w);
  even.v = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  odd.v = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-65536)));
}

inline __m512i broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return _mm512_set1_epi32(quad);
}

template <int kRows>
inline void dot_int8(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
#pragma GCC unroll 8
  for (int quad = 0; quad < kGroupSize / 4; ++quad) {
    __m512i w[kPanelVecs];
    for (int v = 0; v < kPanelVecs; ++v) {
      w[v] = _mm512_loadu_si512(group + (quad * kPanelVecs + v) * 64);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m512i xq = broadcast_quad(x + r * x_stride + quad * 4);
      for (int v = 0; v < kPanelVecs; ++v) {
        sums[r][v].v = _mm512_dpbusd_epi32(sums[r][v].v, w[v], xq);
      }
    }
  }
}

template <int kRows>
inline void dot_int4(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
  const __m512i mask = _mm512_set1_epi8(0xf);
#pragma GCC unroll 4
  for (int quad = 0; quad < kGroupSize / 8; ++quad) {
    __m512i low[kPanelVecs], high[kPanelVecs];
    for (int v = 0; v < kPanelVecs; ++v) {
      const __m512i bytes = _mm512_loadu_si512(group + (quad * kPanelVecs + v) * 64);
      low[v] = _mm512_and_si512(bytes, mask);
      high[v] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m512i x_low = broadcast_quad(x + r * x_stride + quad * 4);
      const __m512i x_high = broadcast_quad(x + r * x_stride + quad * 4 + kGroupSize / 2);
      for (int v = 0; v < kPanelVecs; ++v) {
        sums[r][v].v = _mm512_dpbusd_epi32(sums[r][v].v, low[v], x_low);
        sums[r][v].v = _mm512_dpbusd_epi32(sums[r][v].v, high[v], x_high);
      }
    }
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
