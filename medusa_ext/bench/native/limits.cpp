// What one thread of this machine can do at most: reading memory, and the instruction sequences of
// the matrix kernels' inner loops on registers alone, without loads of weights or activations.
//
// Compiled at run time for one instruction set: MEDUSA_PROBE_ISA and MEDUSA_PROBE_DOT name its
// headers. Each function is called by as many threads as are to be measured.
// clang-format off
#include "cpu/isa/headers.h"
#include MEDUSA_PROBE_ISA
#include MEDUSA_PROBE_DOT
// clang-format on

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Makes the compiler believe that a register changed, so that no arithmetic on it leaves a loop.
template <typename T>
inline auto touch(T& value, int) -> decltype(static_cast<void>(value.v)) {
#if defined(__aarch64__)
  asm volatile("" : "+w"(value.v));
#else
  asm volatile("" : "+x"(value.v));
#endif
}

/// The same where the instruction set has no vectors.
template <typename T>
inline void touch(T& value, long) {
  asm volatile("" : "+m"(value));
}

template <typename Acc>
float sum_of(const Acc* values, int count) {
  float total = 0;
  for (int i = 0; i < count; ++i) {
    const Vec vec = to_vec(values[i]);
    total += reduce_add(vec);
  }
  return total;
}

inline Vec to_vec(Vec x) { return x; }

/// The float tile: a broadcast activation times a panel's weights.
inline float float_peak(int64_t iterations) {
  Vec acc[kFloatRows * kPanelVecs], weight[kPanelVecs];
  for (Vec& one : acc) one = zero();
  for (Vec& one : weight) one = broadcast(1e-9f);
  Vec x = broadcast(1e-9f);
  for (int64_t i = 0; i < iterations; ++i) {
    touch(x, 0);
#pragma GCC unroll 64
    for (int r = 0; r < kFloatRows * kPanelVecs; ++r) {
      acc[r] = fma(x, weight[r % kPanelVecs], acc[r]);
    }
  }
  return sum_of(acc, kFloatRows * kPanelVecs);
}

template <bool kNibbles>
float quantized_peak(int64_t iterations) {
  constexpr int kRows = kQuantizedRows, kTile = kRows * kPanelVecs;
  using Acc = std::conditional_t<kNibbles, NibbleSums, Sums>;
  Vec total[kTile], scale[kPanelVecs], minimum[kPanelVecs];
  for (Vec& one : total) one = zero();
  for (Vec& one : scale) one = broadcast(1e-9f);
  for (Vec& one : minimum) one = broadcast(1e-9f);
  const int8_t ones[4] = {1, 1, 1, 1};
  Quads x = broadcast_quad(ones), bytes[kPanelVecs];
  for (Quads& one : bytes) one = broadcast_quad(ones);
  Vec x_scale = broadcast(1e-9f);
  for (int64_t i = 0; i < iterations; ++i) {
    Acc sums[kTile];
#pragma GCC unroll 64
    for (int t = 0; t < kTile; ++t) set(sums[t], 0);
#pragma GCC unroll 8
    for (int quad = 0; quad < kGroupSize / 4; quad += kNibbles ? 2 : 1) {
      touch(x, 0);
      Quads low[kPanelVecs], high[kPanelVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) {
        touch(bytes[v], 0);
        low[v] = kNibbles ? low_nibbles(bytes[v]) : bytes[v];
        high[v] = kNibbles ? high_nibbles(bytes[v]) : bytes[v];
      }
#pragma GCC unroll 64
      for (int t = 0; t < kTile; ++t) {
        if constexpr (kNibbles) {
          add_nibble_dot(sums[t], low[t % kPanelVecs], x);
        } else {
          add_dot(sums[t], low[t % kPanelVecs], x);
        }
      }
      if constexpr (kNibbles) {
#pragma GCC unroll 64
        for (int t = 0; t < kTile; ++t) add_nibble_dot(sums[t], high[t % kPanelVecs], x);
      }
    }
#pragma GCC unroll 64
    for (int t = 0; t < kTile; ++t) {
      total[t] = fma(to_vec(sums[t]) * scale[t % kPanelVecs], x_scale, total[t]);
      if constexpr (kNibbles) total[t] = fma(minimum[t % kPanelVecs], x_scale, total[t]);
    }
  }
  return sum_of(total, kTile);
}

inline uint64_t read_all(const void* start, int64_t bytes) {
  const auto* words = static_cast<const uint64_t*>(start);
  uint64_t lanes[32] = {};
  for (int64_t i = 0; i + 32 <= bytes / 8; i += 32) {
    for (int line = 0; line < 4; ++line) __builtin_prefetch(words + i + 1024 + 8 * line);
    for (int lane = 0; lane < 32; ++lane) lanes[lane] ^= words[i + lane];
  }
  uint64_t all = 0;
  for (const uint64_t lane : lanes) all ^= lane;
  return all;
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE

#if MEDUSA_PROBE_REGION
#include "cpu/isa/end.h"
#endif

namespace isa = medusa::cpu::MEDUSA_ISA_NAMESPACE;

#define MEDUSA_EXPORT extern "C" __attribute__((visibility("default")))

/// Operations (a multiplication and an addition count two) of one iteration: 0 float32, 3 int8,
/// 4 int4 (the values of DType).
MEDUSA_EXPORT int64_t medusa_probe_operations(int32_t format) {
  const int64_t lanes = int64_t{isa::kPanelVecs} * isa::Vec::kSize;
  return format == 0 ? 2 * lanes * isa::kFloatRows
                     : 2 * lanes * isa::kQuantizedRows * medusa::kGroupSize;
}

MEDUSA_EXPORT float medusa_probe_peak(int32_t format, int64_t iterations) {
  if (format == 0) return isa::float_peak(iterations);
  return format == 3 ? isa::quantized_peak<false>(iterations)
                     : isa::quantized_peak<true>(iterations);
}

MEDUSA_EXPORT uint64_t medusa_probe_read(const void* start, int64_t bytes) {
  return isa::read_all(start, bytes);
}
