// What attention needs of Vec beyond vec_neon.h; attention_vec_generic.h documents the functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

inline Vec times_exp2(Vec p, Vec n) {
  const Vec lowest = broadcast(-126.0f);
  return zero_unless_at_least(p * exp2_integer(max(n, lowest)), n, lowest);
}

inline Vec load_words(const void* p) {
  return {vreinterpretq_f32_u8(vld1q_u8(static_cast<const uint8_t*>(p)))};
}
inline Vec load_words_partial(const void* p, int n) {
  uint8_t buffer[16] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * 4);
  return load_words(buffer);
}

inline Vec unpack(Vec words, int, const float*) { return words; }
inline Vec unpack(Vec words, int i, const BFloat16*) {
  const uint32x4_t bits = vreinterpretq_u32_f32(words.v);
  return {vreinterpretq_f32_u32(i == 0 ? vshlq_n_u32(bits, 16)
                                       : vandq_u32(bits, vdupq_n_u32(0xffff0000u)))};
}
inline Vec unpack(Vec words, int i, const Float16*) {
  const uint32x4_t bits = vreinterpretq_u32_f32(words.v);
  const uint16x4_t half = i == 0 ? vmovn_u32(bits) : vshrn_n_u32(bits, 16);
  return {vcvt_f32_f16(vreinterpret_f16_u16(half))};
}
inline Vec unpack(Vec words, int i, const int8_t*) {
  const int32x4_t bits = vshlq_s32(vreinterpretq_s32_f32(words.v), vdupq_n_s32(24 - 8 * i));
  return {vcvtq_f32_s32(vshrq_n_s32(bits, 24))};
}

inline void transpose(Vec* rows) {
  const float32x4x2_t low = vtrnq_f32(rows[0].v, rows[1].v);
  const float32x4x2_t high = vtrnq_f32(rows[2].v, rows[3].v);
  rows[0].v = vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0]));
  rows[1].v = vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1]));
  rows[2].v = vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0]));
  rows[3].v = vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1]));
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
