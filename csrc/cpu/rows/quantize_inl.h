// Float rows into the form matrix products read.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Below this a group is zero: 127 / amax must stay finite.
constexpr float kSmallestAmax = 1e-30f;

/// Quantises one group: scale = amax / 127, value = x * (127 / amax) to the nearest integer, ties
/// to even. IEEE operations alone, so every instruction set gives the same bits. `count` <= 32
/// values are read; the rest of the group is 0.
inline void quantize_group(const float* x, int count, Int8Row row, int64_t group) {
  constexpr int kVecs = kGroupSize / Vec::kSize;
  Vec v[kVecs];
  Vec largest = zero();
  for (int i = 0; i < kVecs; ++i) {
    const int left = count - i * Vec::kSize;
    v[i] = left >= Vec::kSize ? load(x + i * Vec::kSize)
                              : load_partial(x + i * Vec::kSize, std::max(left, 0));
    largest = max(abs(v[i]), largest);
  }
  const float amax = reduce_max(largest);
  const bool is_zero = !(amax >= kSmallestAmax);
  const Vec inverse = broadcast(is_zero ? 0.0f : 127.0f / amax);
  Vec sum = zero();
  for (int i = 0; i < kVecs; ++i) {
    const Vec q = round(v[i] * inverse);
    store_int8(q, row.values + group * kGroupSize + i * Vec::kSize);
    sum = sum + q;  // integers far below 2^24: exact in any order
  }
  const float scale = is_zero ? 0.0f : amax / 127.0f;
  const float total = reduce_add(sum);
  row.scales[group] = scale;
  row.starts[group] = kSumStart - 128 * static_cast<int32_t>(total);
  row.scaled_sums[group] = scale * total;
}

/// Writes values [first, first + count) of one row; `first` is a multiple of 32 (only the last
/// piece of a row may have a count that is not).
inline void write_activations(const float* x, int64_t first, int64_t count, const Activations& out,
                              int64_t row) {
  if (out.format != kInt8Activations) {
    std::copy(x, x + count, float_row(out, row) + first);
    return;
  }
  const Int8Row quantized = int8_row(out, row);
  for (int64_t i = 0; i < count; i += kGroupSize) {
    quantize_group(x + i, static_cast<int>(std::min<int64_t>(kGroupSize, count - i)), quantized,
                   (first + i) / kGroupSize);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
