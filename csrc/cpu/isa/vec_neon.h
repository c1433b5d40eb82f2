// Vec for NEON, which every AArch64 has; vec_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

struct Vec {
  static constexpr int kSize = 4;
  float32x4_t v;
};

inline Vec zero() { return {vdupq_n_f32(0.0f)}; }
inline Vec broadcast(float x) { return {vdupq_n_f32(x)}; }

inline Vec load(const float* p) { return {vld1q_f32(p)}; }
inline Vec load(const BFloat16* p) {
  return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16))};
}
inline Vec load(const Float16* p) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))};
}
inline Vec load(const int8_t* p) {
  int32_t bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  const int16x8_t words = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)))};
}
inline Vec load(const int32_t* p) { return {vcvtq_f32_s32(vld1q_s32(p))}; }

template <typename T>
inline Vec load_partial(const T* p, int n) {
  T buffer[Vec::kSize] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
  return load(buffer);
}

inline void store(Vec x, float* p) { vst1q_f32(p, x.v); }
inline void store(Vec x, BFloat16* p) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x.v);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  const uint32x4_t number = vceqq_f32(x.v, x.v);
  vst1_u16(&p->bits, vshrn_n_u32(vbslq_u32(number, rounded, quiet), 16));
}
inline void store(Vec x, Float16* p) {
  vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(x.v)));
}

template <typename T>
inline void store_partial(Vec x, T* p, int n) {
  T buffer[Vec::kSize];
  store(x, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(T));
}

inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
inline Vec abs(Vec x) { return {vabsq_f32(x.v)}; }
inline Vec round(Vec x) { return {vrndnq_f32(x.v)}; }
inline Vec exp2_integer(Vec n) {
  const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(n.v), vdupq_n_s32(127));
  return {vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23))};
}
inline Vec zero_unless_at_least(Vec y, Vec x, Vec limit) {
  return {vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(y.v), vcgeq_f32(x.v, limit.v)))};
}

inline float reduce_add(Vec x) {
  const float32x2_t s = vadd_f32(vget_low_f32(x.v), vget_high_f32(x.v));
  return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}
inline float reduce_max(Vec x) {
  const float32x2_t s = vmax_f32(vget_low_f32(x.v), vget_high_f32(x.v));
  return std::max(vget_lane_f32(s, 0), vget_lane_f32(s, 1));
}

inline void store_int8(Vec x, int8_t* p) {
  const int16x4_t words = vqmovn_s32(vcvtnq_s32_f32(x.v));
  const int8x8_t bytes = vqmovn_s16(vcombine_s16(words, words));
  vst1_lane_s32(reinterpret_cast<int32_t*>(p), vreinterpret_s32_s8(bytes), 0);
}

inline void prefetch(const void* p) { __builtin_prefetch(p); }

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE

// Functions over these.
#include "cpu/isa/vec_math_inl.h"
