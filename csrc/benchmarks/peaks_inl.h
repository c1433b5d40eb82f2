// What the arithmetic of a tile could do if all operands were in registers: the instruction
// sequences of linear_*_inl.h without their loads and stores. For benchmarks; included per
// instruction set, like those. Each function returns the operations it did, a multiplication and an
// addition counting two.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Makes a register's contents unknown to the compiler, so that work on it is neither merged with
/// other work nor taken out of a loop. Every operand that a tile loads anew is hidden each time:
/// with one activation for all rows, the compiler would share products among them.
template <typename T>
inline auto hide(T& x, int) -> decltype(static_cast<void>(x.v)) {
#if defined(__aarch64__)
  asm volatile("" : "+w"(x.v));
#else
  asm volatile("" : "+v"(x.v));
#endif
}

/// The same where the instruction set has no vectors.
template <typename T>
inline void hide(T& x, long) {
  asm volatile("" : "+m"(x));
}

template <typename T, int kRows>
inline void hide_all(T (&values)[kRows][kPanelVecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) hide(values[r][v], 0);
  }
}

/// One multiply-add per row and vector of outputs a step.
double float_peak(int64_t steps) {
  Vec acc[kFloatRows][kPanelVecs] = {};
  hide_all(acc);
  Vec weight[kPanelVecs] = {}, x = zero();
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) hide(weight[v], 0);
#pragma GCC unroll 16
    for (int r = 0; r < kFloatRows; ++r) {
      hide(x, 0);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) acc[r][v] = fma(x, weight[v], acc[r][v]);
    }
  }
  hide_all(acc);
  return static_cast<double>(steps) * kFloatRows * kPanel * 2;
}

template <typename T, int kRows>
inline void scale_sums(T (&sums)[kRows][kPanelVecs], Vec scale, Vec x_scale,
                       Vec (&total)[kRows][kPanelVecs]) {
#pragma GCC unroll 16
  for (int v = 0; v < kPanelVecs; ++v) {
    hide(scale, 0);
    const SumScale by = sum_scale(scale);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      total[r][v] = fma(scaled(sums[r][v], by), x_scale, total[r][v]);
    }
  }
}

/// Groups of 32 int8 products and their scaling.
double int8_peak(int64_t groups) {
  constexpr int kRows = kInt8Rows;
  Vec total[kRows][kPanelVecs] = {};
  Vec scale = zero(), x_scale = zero();
  hide_all(total);
  hide(scale, 0);
  hide(x_scale, 0);
  Quads w[kPanelVecs] = {}, x = {};
  for (int64_t g = 0; g < groups; ++g) {
    Sums sums[kRows][kPanelVecs] = {};
    hide_all(sums);
#pragma GCC unroll 8
    for (int quad = 0; quad < kGroupSize / 4; ++quad) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) hide(w[v], 0);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        hide(x, 0);
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVecs; ++v) add_dot(sums[r][v], w[v], x);
      }
    }
    scale_sums(sums, scale, x_scale, total);
  }
  hide_all(total);
  return static_cast<double>(groups) * kRows * kPanel * kGroupSize * 2;
}

/// Groups of 32 int4 products, unpacked, scaled, and with the minimum's share.
double int4_peak(int64_t groups) {
  constexpr int kRows = kInt4Rows;
  Vec total[kRows][kPanelVecs] = {};
  Vec scale = zero(), minimum = zero(), x_scale = zero();
  hide_all(total);
  hide(scale, 0);
  hide(minimum, 0);
  hide(x_scale, 0);
  Quads bytes[kPanelVecs] = {}, x = {};
  for (int64_t g = 0; g < groups; ++g) {
    NibbleSums sums[kRows][kPanelVecs] = {};
    hide_all(sums);
#pragma GCC unroll 4
    for (int quad = 0; quad < kGroupSize / 8; ++quad) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) {
        hide(bytes[v], 0);
        const Quads low = low_nibbles(bytes[v]), high = high_nibbles(bytes[v]);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          hide(x, 0);
          add_nibble_dot(sums[r][v], low, x);
          add_nibble_dot(sums[r][v], high, x);
        }
      }
    }
    scale_sums(sums, scale, x_scale, total);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) total[r][v] = fma(minimum, x_scale, total[r][v]);
    }
  }
  hide_all(total);
  return static_cast<double>(groups) * kRows * kPanel * kGroupSize * 2;
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
