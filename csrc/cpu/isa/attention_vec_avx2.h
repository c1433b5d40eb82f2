// What attention needs of Vec beyond vec_avx2.h; attention_vec_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

inline Vec times_exp2(Vec p, Vec n) {
  const Vec lowest = broadcast(-126.0f);
  return zero_unless_at_least(p * exp2_integer(max(n, lowest)), n, lowest);
}

inline Vec load_words(const void* p) {
  return {_mm256_castsi256_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
inline Vec load_words_partial(const void* p, int n) {
  return {_mm256_castsi256_ps(_mm256_maskload_epi32(static_cast<const int*>(p), first_lanes(n)))};
}

inline Vec unpack(Vec words, int, const float*) { return words; }
inline Vec unpack(Vec words, int i, const BFloat16*) {
  const __m256i bits = _mm256_castps_si256(words.v);
  return {_mm256_castsi256_ps(i == 0 ? _mm256_slli_epi32(bits, 16)
                                     : _mm256_and_si256(bits, _mm256_set1_epi32(-65536)))};
}
inline Vec unpack(Vec words, int i, const Float16*) {
  const __m256i bits = _mm256_castps_si256(words.v);
  const __m256i half =
      i == 0 ? _mm256_and_si256(bits, _mm256_set1_epi32(0xffff)) : _mm256_srli_epi32(bits, 16);
  const __m128i packed =
      _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return {_mm256_cvtph_ps(packed)};
}
inline Vec unpack(Vec words, int i, const int8_t*) {
  const __m256i bits =
      _mm256_sll_epi32(_mm256_castps_si256(words.v), _mm_cvtsi32_si128(24 - 8 * i));
  return {_mm256_cvtepi32_ps(_mm256_srai_epi32(bits, 24))};
}

inline void transpose(Vec* rows) {
  __m256 a[8], b[8];
  // 2 x 2 and 4 x 4 blocks inside the 128-bit lanes, then the lanes themselves.
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i].v, rows[i + 1].v);
    a[i + 1] = _mm256_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m256d low = _mm256_castps_pd(a[i + j]), high = _mm256_castps_pd(a[i + j + 2]);
      b[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
      b[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
  }
  for (int i = 0; i < 4; ++i) {
    rows[i].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    rows[i + 4].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
