// Tile sizes and integer dot products for AVX2; dot_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 2;
constexpr int kFloatRows = 6;
constexpr int kInt8Rows = 4;
constexpr int kInt4Rows = 3;
constexpr int kWeightOffset = 0;
constexpr int32_t kFirstSum = 0;

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

/// 16-bit sums: a group's sixteen products per sum are at most 16 * 15 * 127 = 30480.
struct NibbleSums {
  __m256i v;
};

inline void set(Sums& sums, int32_t value) { sums.v = _mm256_set1_epi32(value); }
inline void set(NibbleSums& sums, int32_t) { sums.v = _mm256_setzero_si256(); }

/// GCC regroups a chain of integer additions into a tree, whose nodes do not fit the registers.
inline void keep_order(__m256i& sums) { asm("" : "+x"(sums)); }

/// |w| times x with w's sign: a pair of products is at most 2 * 128 * 127 and does not saturate.
inline void add_dot(Sums& sums, Quads w, Quads x) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w.v), _mm256_sign_epi8(x.v, w.v));
  sums.v = _mm256_add_epi32(sums.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  keep_order(sums.v);
}
inline void add_nibble_dot(NibbleSums& sums, Quads w, Quads x) {
  sums.v = _mm256_add_epi16(sums.v, _mm256_maddubs_epi16(w.v, x.v));
  keep_order(sums.v);
}

using SumScale = Vec;
inline SumScale sum_scale(Vec scale) { return scale; }
inline Vec scaled(Sums sums, SumScale scale) { return Vec{_mm256_cvtepi32_ps(sums.v)} * scale; }
inline Vec scaled(NibbleSums sums, SumScale scale) {
  return scaled(Sums{_mm256_madd_epi16(sums.v, _mm256_set1_epi16(1))}, scale);
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
