// Tile sizes and integer dot products for AVX2 with AVX-VNNI; dot_generic.h documents the
// functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 2;
constexpr int kFloatRows = 6;
constexpr int kInt8Rows = 4;
constexpr int kInt4Rows = 4;
constexpr int kWeightOffset = 128;  // vpdpbusd multiplies unsigned by signed bytes
constexpr int32_t kFirstSum = kSumStart;

inline void load_bfloat16_pairs(const BFloat16* w, Vec& even, Vec& odd) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  even.v = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  odd.v = _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(-65536)));
}

struct Quads {
  __m256i v;
};

inline Quads load_quads(const char* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}

inline Quads broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return {_mm256_set1_epi32(quad)};
}

inline Quads low_nibbles(Quads bytes) { return {_mm256_and_si256(bytes.v, _mm256_set1_epi8(0xf))}; }
inline Quads high_nibbles(Quads bytes) {
  return {_mm256_and_si256(_mm256_srli_epi16(bytes.v, 4), _mm256_set1_epi8(0xf))};
}

struct Sums {
  __m256i v;
};
using NibbleSums = Sums;

inline void set(Sums& sums, int32_t value) { sums.v = _mm256_set1_epi32(value); }
inline void add_dot(Sums& sums, Quads w, Quads x) {
  sums.v = _mm256_dpbusd_avx_epi32(sums.v, w.v, x.v);
}
inline void add_nibble_dot(NibbleSums& sums, Quads w, Quads x) { add_dot(sums, w, x); }

/// Sums are read as floats where they are: kSumStartValue + sum, exactly. The multiply-add that
/// scales them takes the start off again, and rounds once as the product of a converted sum would.
struct SumScale {
  Vec scale, start;
};
inline SumScale sum_scale(Vec scale) { return {scale, scale * broadcast(-kSumStartValue)}; }
inline Vec scaled(Sums sums, const SumScale& by) {
  return fma(Vec{_mm256_castsi256_ps(sums.v)}, by.scale, by.start);
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
