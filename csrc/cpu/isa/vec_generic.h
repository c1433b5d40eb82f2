// Vec for any machine: eight floats in an array, loops the compiler unrolls. The other vec_*.h
// files have the same functions.
//
// fma here is a product and a sum, each rounded: without hardware support std::fma costs hundreds
// of cycles, and results need only agree within one instruction set.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

struct Vec {
  static constexpr int kSize = 8;
  float lane[kSize];
};

namespace detail {

template <typename F>
inline Vec make_vec(F&& lane) {
  Vec out;
  for (int i = 0; i < Vec::kSize; ++i) out.lane[i] = lane(i);
  return out;
}

}  // namespace detail

inline Vec zero() { return Vec{}; }
inline Vec broadcast(float x) {
  return detail::make_vec([&](int) { return x; });
}

/// p[0] … p[kSize-1] as float32; T is float, BFloat16, Float16, int8_t or int32_t. No alignment
/// needed.
template <typename T>
inline Vec load(const T* p) {
  if constexpr (std::is_integral_v<T>) {
    return detail::make_vec([&](int i) { return static_cast<float>(p[i]); });
  } else {
    return detail::make_vec([&](int i) { return to_float(p[i]); });
  }
}

/// The first n lanes (0 <= n <= kSize) as load does; the others are 0 and not read.
template <typename T>
inline Vec load_partial(const T* p, int n) {
  T buffer[Vec::kSize] = {};
  std::copy(p, p + n, buffer);
  return load(buffer);
}

/// Stores as T (float, BFloat16 or Float16), rounded to nearest even.
template <typename T>
inline void store(Vec x, T* p) {
  for (int i = 0; i < Vec::kSize; ++i) p[i] = from_float<T>(x.lane[i]);
}

/// Stores the first n lanes only.
template <typename T>
inline void store_partial(Vec x, T* p, int n) {
  for (int i = 0; i < n; ++i) p[i] = from_float<T>(x.lane[i]);
}

inline Vec operator+(Vec a, Vec b) {
  return detail::make_vec([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec operator-(Vec a, Vec b) {
  return detail::make_vec([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Vec operator*(Vec a, Vec b) {
  return detail::make_vec([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Vec operator/(Vec a, Vec b) {
  return detail::make_vec([&](int i) { return a.lane[i] / b.lane[i]; });
}

/// a * b + c, rounded once where the instruction set can.
inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }

/// a > b ? a : b: b where either is NaN.
inline Vec max(Vec a, Vec b) {
  return detail::make_vec([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}

/// a < b ? a : b: b where either is NaN.
inline Vec min(Vec a, Vec b) {
  return detail::make_vec([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}

inline Vec abs(Vec x) {
  return detail::make_vec(
      [&](int i) { return bits_to_float(float_to_bits(x.lane[i]) & 0x7fffffffu); });
}

/// To the nearest integer, ties to even; |x| < 2^22.
inline Vec round(Vec x) {
  const Vec magic = broadcast(12582912.0f);  // 1.5 * 2^23: its unit is 1
  return (x + magic) - magic;
}

/// 2^n for integer n in [-126, 127].
inline Vec exp2_integer(Vec n) {
  return detail::make_vec(
      [&](int i) { return bits_to_float(float_to_bits(n.lane[i] + 12582912.0f + 127.0f) << 23); });
}

/// y where x >= limit, else 0 (also where x is NaN).
inline Vec zero_unless_at_least(Vec y, Vec x, Vec limit) {
  return detail::make_vec([&](int i) { return x.lane[i] >= limit.lane[i] ? y.lane[i] : 0.0f; });
}

/// Sums and maxima in a fixed order: halves are folded onto each other.
inline float reduce_add(Vec x) {
  for (int half = Vec::kSize / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) x.lane[i] = x.lane[i] + x.lane[i + half];
  }
  return x.lane[0];
}

inline float reduce_max(Vec x) {
  for (int half = Vec::kSize / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      x.lane[i] = x.lane[i] > x.lane[i + half] ? x.lane[i] : x.lane[i + half];
    }
  }
  return x.lane[0];
}

/// Stores lanes that hold integers in [-128, 127] as bytes.
inline void store_int8(Vec x, int8_t* p) {
  for (int i = 0; i < Vec::kSize; ++i) {
    p[i] = static_cast<int8_t>(float_to_bits(x.lane[i] + 12582912.0f) & 0xffu);
  }
}

inline void prefetch(const void* p) { __builtin_prefetch(p); }

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE

// Functions over these.
#include "cpu/isa/vec_math_inl.h"
