// Tile sizes and integer dot products for NEON; dot_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 4;
constexpr int kFloatRows = 5;
constexpr int kQuantizedRows = 2;
constexpr int kWeightOffset = 0;

struct Sums {
  int32x4_t v;
};

inline Sums broadcast_sums(int32_t value) { return {vdupq_n_s32(value)}; }
inline Vec to_vec(Sums sums) { return {vcvtq_f32_s32(sums.v)}; }

inline void load_bfloat16_pairs(const BFloat16* w, Vec& even, Vec& odd) {
  const uint32x4_t words = vreinterpretq_u32_u16(vld1q_u16(&w->bits));
  even.v = vreinterpretq_f32_u32(vshlq_n_u32(words, 16));
  odd.v = vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xffff0000u)));
}

inline int8x16_t load_weights(const char* p) {
  return vld1q_s8(reinterpret_cast<const int8_t*>(p));
}

/// The four bytes at x in every lane of 32 bits.
inline int8x16_t broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return vreinterpretq_s8_s32(vdupq_n_s32(quad));
}

#if defined(MEDUSA_NEON_DOTPROD)

inline int32x4_t add_dot(int32x4_t sum, int8x16_t w, int8x16_t x) { return vdotq_s32(sum, w, x); }

#else

/// Products of 8 bits are widened to 16, pairs of them to 32: exact for any bytes.
inline int32x4_t add_dot(int32x4_t sum, int8x16_t w, int8x16_t x) {
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
  const int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(w), vget_high_s8(x)));
  return vaddq_s32(sum, vpaddq_s32(low, high));
}

#endif

template <int kRows>
inline void dot_int8(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
#pragma GCC unroll 8
  for (int quad = 0; quad < kGroupSize / 4; ++quad) {
    int8x16_t w[kPanelVecs];
    for (int v = 0; v < kPanelVecs; ++v) w[v] = load_weights(group + (quad * kPanelVecs + v) * 16);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const int8x16_t xq = broadcast_quad(x + r * x_stride + quad * 4);
      for (int v = 0; v < kPanelVecs; ++v) sums[r][v].v = add_dot(sums[r][v].v, w[v], xq);
    }
  }
}

template <int kRows>
inline void dot_int4(const char* group, const int8_t* x, int64_t x_stride,
                     Sums (&sums)[kRows][kPanelVecs]) {
#pragma GCC unroll 4
  for (int quad = 0; quad < kGroupSize / 8; ++quad) {
    int8x16_t low[kPanelVecs], high[kPanelVecs];
    for (int v = 0; v < kPanelVecs; ++v) {
      const int8x16_t bytes = load_weights(group + (quad * kPanelVecs + v) * 16);
      low[v] = vandq_s8(bytes, vdupq_n_s8(0xf));
      high[v] = vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(bytes), 4));
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const int8x16_t x_low = broadcast_quad(x + r * x_stride + quad * 4);
      const int8x16_t x_high = broadcast_quad(x + r * x_stride + quad * 4 + kGroupSize / 2);
      for (int v = 0; v < kPanelVecs; ++v) {
        sums[r][v].v = add_dot(add_dot(sums[r][v].v, low[v], x_low), high[v], x_high);
      }
    }
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
