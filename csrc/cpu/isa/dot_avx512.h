// Tile sizes and integer dot products for AVX-512 VNNI; dot_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 2;
constexpr int kFloatRows = 12;
constexpr int kInt8Rows = 8;
constexpr int kInt4Rows = 8;
constexpr int kWeightOffset = 128;  // vpdpbusd multiplies unsigned by signed bytes
constexpr int32_t kFirstSum = kSumStart;

inline void load_bfloat16_pairs(const BFloat16* w, Vec& even, Vec& odd) {
  const __m512i words = _mm512_loadu_si512(w);
  even.v = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  odd.v = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-65536)));
}

struct Quads {
  __m512i v;
};

inline Quads load_quads(const char* p) { return {_mm512_loadu_si512(p)}; }

inline Quads broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return {_mm512_set1_epi32(quad)};
}

inline Quads low_nibbles(Quads bytes) { return {_mm512_and_si512(bytes.v, _mm512_set1_epi8(0xf))}; }
inline Quads high_nibbles(Quads bytes) {
  return {_mm512_and_si512(_mm512_srli_epi16(bytes.v, 4), _mm512_set1_epi8(0xf))};
}

struct Sums {
  __m512i v;
};
using NibbleSums = Sums;

inline void set(Sums& sums, int32_t value) { sums.v = _mm512_set1_epi32(value); }
inline void add_dot(Sums& sums, Quads w, Quads x) {
  sums.v = _mm512_dpbusd_epi32(sums.v, w.v, x.v);
}
inline void add_nibble_dot(NibbleSums& sums, Quads w, Quads x) { add_dot(sums, w, x); }

/// Sums are read as floats where they are: kSumStartValue + sum, exactly. The multiply-add that
/// scales them takes the start off again, and rounds once as the product of a converted sum would.
struct SumScale {
  Vec scale, start;
};
inline SumScale sum_scale(Vec scale) { return {scale, scale * broadcast(-kSumStartValue)}; }
inline Vec scaled(Sums sums, const SumScale& by) {
  return fma(Vec{_mm512_castsi512_ps(sums.v)}, by.scale, by.start);
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
