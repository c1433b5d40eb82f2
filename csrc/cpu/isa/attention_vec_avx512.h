// What attention needs of Vec beyond vec_avx512.h; attention_vec_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Lanes that come to 0 are left out: underflow takes some processors 200 cycles.
inline Vec times_exp2(Vec p, Vec n) {
  const __mmask16 lanes = _mm512_cmp_ps_mask(n.v, _mm512_set1_ps(-150.0f), _CMP_GE_OQ);
  return {_mm512_maskz_scalef_ps(lanes, p.v, n.v)};
}

inline Vec load_words(const void* p) { return {_mm512_castsi512_ps(_mm512_loadu_si512(p))}; }
inline Vec load_words_partial(const void* p, int n) {
  return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi32(first_lanes(n), p))};
}

inline Vec unpack(Vec words, int, const float*) { return words; }
inline Vec unpack(Vec words, int i, const BFloat16*) {
  const __m512i bits = _mm512_castps_si512(words.v);
  return {_mm512_castsi512_ps(i == 0 ? _mm512_slli_epi32(bits, 16)
                                     : _mm512_and_si512(bits, _mm512_set1_epi32(-65536)))};
}
inline Vec unpack(Vec words, int i, const Float16*) {
  const __m512i bits = _mm512_castps_si512(words.v);
  return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(i == 0 ? bits : _mm512_srli_epi32(bits, 16)))};
}
inline Vec unpack(Vec words, int i, const int8_t*) {
  const __m512i bits =
      _mm512_sll_epi32(_mm512_castps_si512(words.v), _mm_cvtsi32_si128(24 - 8 * i));
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(bits, 24))};
}

inline void transpose(Vec* rows) {
  __m512 a[16], b[16];
  // 2 x 2 and 4 x 4 blocks inside the 128-bit lanes, then the lanes themselves.
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d low = _mm512_castps_pd(a[i + j]), high = _mm512_castps_pd(a[i + j + 2]);
      b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
    a[i + 4] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
    a[i + 8] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
    a[i + 12] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    rows[i].v = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
    rows[i + 8].v = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
