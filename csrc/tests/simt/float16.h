// The two 16-bit floating types, one body for both; cuda_fp16.h and cuda_bf16.h name them.
#pragma once

#include <stdint.h>

#include "vector_types.h"

namespace simt {

inline uint32_t float_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float bits_float(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

struct Bfloat16Format {
  static float to_float(uint16_t bits) { return bits_float(static_cast<uint32_t>(bits) << 16); }
  static uint16_t from_float(float x) {  // to nearest, ties to even
    const uint32_t bits = float_bits(x);
    if (x != x) return 0x7FFF;
    return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
  }
};

struct HalfFormat {
  static float to_float(uint16_t bits) {
    const uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31;
    const uint32_t mantissa = bits & 0x3FFu;
    if (exponent == 31) return bits_float(sign | 0x7F800000u | mantissa << 13);
    if (exponent != 0) return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  static uint16_t from_float(float x) {  // to nearest, ties to even
    const uint32_t bits = float_bits(x), magnitude = bits & 0x7FFFFFFFu;
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    if (magnitude > 0x7F800000u) return 0x7FFF;
    if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
    if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 aligns and rounds the mantissa
      const uint32_t aligned = float_bits(bits_float(magnitude) + 0.5f);
      return static_cast<uint16_t>(sign | (aligned - 0x3F000000u));
    }
    const uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1) - (112u << 23);
    return static_cast<uint16_t>(sign | rounded >> 13);
  }
};

template <typename Format>
struct Float16 {
  uint16_t bits;

  Float16() = default;  // trivial, so that __shared__ arrays of it need no initialiser
  Float16(float x) : bits(Format::from_float(x)) {}
  operator float() const { return Format::to_float(bits); }
  static Float16 from_bits(uint16_t bits) {
    Float16 result;
    result.bits = bits;
    return result;
  }
  friend Float16 operator+(Float16 a, Float16 b) { return float(a) + float(b); }
  friend Float16 operator-(Float16 a, Float16 b) { return float(a) - float(b); }
  friend Float16 operator*(Float16 a, Float16 b) { return float(a) * float(b); }
  friend Float16 operator/(Float16 a, Float16 b) { return float(a) / float(b); }
  friend Float16 operator-(Float16 a) { return -float(a); }
  friend bool operator==(Float16 a, Float16 b) { return float(a) == float(b); }
  friend bool operator!=(Float16 a, Float16 b) { return float(a) != float(b); }
  friend bool operator<(Float16 a, Float16 b) { return float(a) < float(b); }
  friend bool operator>(Float16 a, Float16 b) { return float(a) > float(b); }
  friend bool operator<=(Float16 a, Float16 b) { return float(a) <= float(b); }
  friend bool operator>=(Float16 a, Float16 b) { return float(a) >= float(b); }
};

template <typename Format>
struct alignas(4) Float16x2 {
  Float16<Format> x, y;
};

}  // namespace simt

template <typename F>
simt::Float16<F> __hadd(simt::Float16<F> a, simt::Float16<F> b) {
  return a + b;
}
template <typename F>
simt::Float16<F> __hsub(simt::Float16<F> a, simt::Float16<F> b) {
  return a - b;
}
template <typename F>
simt::Float16<F> __hmul(simt::Float16<F> a, simt::Float16<F> b) {
  return a * b;
}
template <typename F>
simt::Float16<F> __hmax(simt::Float16<F> a, simt::Float16<F> b) {
  return a != a || b > a ? b : a;
}
template <typename F>
simt::Float16<F> __hmin(simt::Float16<F> a, simt::Float16<F> b) {
  return a != a || b < a ? b : a;
}
template <typename F>
simt::Float16x2<F> __hadd2(simt::Float16x2<F> a, simt::Float16x2<F> b) {
  return {a.x + b.x, a.y + b.y};
}
template <typename F>
simt::Float16x2<F> __hmul2(simt::Float16x2<F> a, simt::Float16x2<F> b) {
  return {a.x * b.x, a.y * b.y};
}
template <typename F>
bool __hisnan(simt::Float16<F> a) {
  return a != a;
}
template <typename F>
float __low2float(simt::Float16x2<F> a) {
  return a.x;
}
template <typename F>
float __high2float(simt::Float16x2<F> a) {
  return a.y;
}
