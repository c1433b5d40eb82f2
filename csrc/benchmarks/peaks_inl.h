// What the arithmetic of a tile could do if all operands were in registers: the instruction
// sequences of csrc/cpu/linear_*_inl.h without their loads and stores. Included per instruction
// set, like those.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Makes a register's contents unknown to the compiler, so that work on it is not merged.
template <typename T>
inline void hide(T& x) {
  asm volatile("" : "+v"(x.v));
}

template <typename T, int kRows>
inline void hide_all(T (&values)[kRows][kPanelVecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) hide(values[r][v]);
  }
}

/// One multiply-add per row and vector of outputs a step. Returns the operations done.
double float_peak(int64_t steps) {
  Vec acc[kFloatRows][kPanelVecs] = {};
  hide_all(acc);
  Vec weight[kPanelVecs] = {}, x = zero();
  for (int64_t i = 0; i < steps; ++i) {
    hide(x);
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) hide(weight[v]);
#pragma GCC unroll 16
    for (int r = 0; r < kFloatRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) acc[r][v] = fma(x, weight[v], acc[r][v]);
    }
  }
  hide_all(acc);
  return static_cast<double>(steps) * kFloatRows * kPanel * 2;
}

template <typename T>
inline void scale_sums(T (&sums)[kQuantizedRows][kPanelVecs], Vec scale, Vec x_scale,
                       Vec (&total)[kQuantizedRows][kPanelVecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < kQuantizedRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) {
      total[r][v] = fma(to_vec(sums[r][v]) * scale, x_scale, total[r][v]);
    }
  }
}

/// Groups of 32 int8 products and their scaling.
double int8_peak(int64_t groups) {
  Vec total[kQuantizedRows][kPanelVecs] = {};
  Vec scale = zero(), x_scale = zero();
  hide_all(total);
  hide(scale);
  hide(x_scale);
  Quads w[kPanelVecs] = {}, x = {};
  for (int64_t g = 0; g < groups; ++g) {
    Sums sums[kQuantizedRows][kPanelVecs] = {};
    hide_all(sums);
#pragma GCC unroll 8
    for (int quad = 0; quad < kGroupSize / 4; ++quad) {
      hide(x);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) hide(w[v]);
#pragma GCC unroll 16
      for (int r = 0; r < kQuantizedRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVecs; ++v) add_dot(sums[r][v], w[v], x);
      }
    }
    scale_sums(sums, scale, x_scale, total);
  }
  hide_all(total);
  return static_cast<double>(groups) * kQuantizedRows * kPanel * kGroupSize * 2;
}

/// Groups of 32 int4 products, unpacked, scaled, and with the minimum's share.
double int4_peak(int64_t groups) {
  Vec total[kQuantizedRows][kPanelVecs] = {};
  Vec scale = zero(), minimum = zero(), x_scale = zero();
  hide_all(total);
  hide(scale);
  hide(minimum);
  hide(x_scale);
  Quads bytes[kPanelVecs] = {}, x = {};
  for (int64_t g = 0; g < groups; ++g) {
    NibbleSums sums[kQuantizedRows][kPanelVecs] = {};
    hide_all(sums);
#pragma GCC unroll 4
    for (int quad = 0; quad < kGroupSize / 8; ++quad) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) {
        hide(bytes[v]);
        const Quads low = low_nibbles(bytes[v]), high = high_nibbles(bytes[v]);
        hide(x);
#pragma GCC unroll 16
        for (int r = 0; r < kQuantizedRows; ++r) {
          add_nibble_dot(sums[r][v], low, x);
          add_nibble_dot(sums[r][v], high, x);
        }
      }
    }
    scale_sums(sums, scale, x_scale, total);
#pragma GCC unroll 16
    for (int r = 0; r < kQuantizedRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) total[r][v] = fma(minimum, x_scale, total[r][v]);
    }
  }
  hide_all(total);
  return static_cast<double>(groups) * kQuantizedRows * kPanel * kGroupSize * 2;
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
