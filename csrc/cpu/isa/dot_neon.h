// Tile sizes and integer dot products for NEON; dot_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 4;
constexpr int kFloatRows = 5;
constexpr int kInt8Rows = 2;
constexpr int kInt4Rows = 2;
constexpr int kWeightOffset = 0;
constexpr int32_t kFirstSum = 0;

inline void load_bfloat16_pairs(const BFloat16* w, Vec& even, Vec& odd) {
  const uint32x4_t words = vreinterpretq_u32_u16(vld1q_u16(&w->bits));
  even.v = vreinterpretq_f32_u32(vshlq_n_u32(words, 16));
  odd.v = vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xffff0000u)));
}

struct Quads {
  int8x16_t v;
};

inline Quads load_quads(const char* p) { return {vld1q_s8(reinterpret_cast<const int8_t*>(p))}; }

inline Quads broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return {vreinterpretq_s8_s32(vdupq_n_s32(quad))};
}

inline Quads low_nibbles(Quads bytes) { return {vandq_s8(bytes.v, vdupq_n_s8(0xf))}; }
inline Quads high_nibbles(Quads bytes) {
  return {vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(bytes.v), 4))};
}

struct Sums {
  int32x4_t v;
};
using NibbleSums = Sums;

inline void set(Sums& sums, int32_t value) { sums.v = vdupq_n_s32(value); }

#if defined(MEDUSA_NEON_DOTPROD)

inline void add_dot(Sums& sums, Quads w, Quads x) { sums.v = vdotq_s32(sums.v, w.v, x.v); }

#else

/// Products of 8 bits are widened to 16, pairs of them to 32: exact for any bytes.
inline void add_dot(Sums& sums, Quads w, Quads x) {
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w.v), vget_low_s8(x.v)));
  const int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(w.v), vget_high_s8(x.v)));
  sums.v = vaddq_s32(sums.v, vpaddq_s32(low, high));
}

#endif

inline void add_nibble_dot(NibbleSums& sums, Quads w, Quads x) { add_dot(sums, w, x); }

using SumScale = Vec;
inline SumScale sum_scale(Vec scale) { return scale; }
inline Vec scaled(Sums sums, SumScale scale) { return Vec{vcvtq_f32_s32(sums.v)} * scale; }

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
