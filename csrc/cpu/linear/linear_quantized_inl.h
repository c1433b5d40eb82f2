// Tiles of a matrix product with int8 or int4 weights and int8 activations.
//
// Order of every sum over K: exact integer sums inside a group of 32; then, group by group in
// ascending order, fma(float(sum) * weight_scale, activation_scale, total), and for int4 also
// fma(weight_minimum, activation_scaled_sum, total).
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Groups whose weights (a panel's) stay in the first-level cache while the row tiles pass.
constexpr int64_t kGroupBlock = 24;

/// int8 activations of consecutive rows, `stride` bytes apart.
struct QuantizedRows {
  const char* values;
  const char* scales;
  const char* starts;
  const char* scaled_sums;
  int64_t stride;

  QuantizedRows(const Activations& activations, int64_t first_row)
      : stride(activation_row_bytes(kInt8Activations, activations.width)) {
    const Int8Row row = int8_row(activations, first_row);
    values = reinterpret_cast<const char*>(row.values);
    scales = reinterpret_cast<const char*>(row.scales);
    starts = reinterpret_cast<const char*>(row.starts);
    scaled_sums = reinterpret_cast<const char*>(row.scaled_sums);
  }

  const int8_t* quad(int r, int64_t g, int q) const {
    return reinterpret_cast<const int8_t*>(values + r * stride + g * kGroupSize + q * 4);
  }
  float scale(int r, int64_t g) const {
    return *reinterpret_cast<const float*>(scales + r * stride + g * 4);
  }
  int32_t start(int r, int64_t g) const {
    return *reinterpret_cast<const int32_t*>(starts + r * stride + g * 4);
  }
  float scaled_sum(int r, int64_t g) const {
    return *reinterpret_cast<const float*>(scaled_sums + r * stride + g * 4);
  }
};

/// One group of a panel, int8: sums[r][v] = the 32 products of each output.
template <int kRows>
inline void dot_group(const char* group, int64_t g, const QuantizedRows& x, Prefetch& ahead,
                      Sums (&sums)[kRows][kPanelVecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const int32_t start = kWeightOffset != 0 ? x.start(r, g) : kFirstSum;
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) set(sums[r][v], start);
  }
  constexpr int kParts = kGroupSize / 4;
  ahead.begin_step<kParts, false>();
#pragma GCC unroll 8
  for (int quad = 0; quad < kParts; ++quad) {
    ahead.part_of_step<kParts, false>(quad);
    Quads w[kPanelVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) {
      w[v] = load_quads(group + (quad * kPanelVecs + v) * 4 * Vec::kSize);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Quads xq = broadcast_quad(x.quad(r, g, quad));
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) add_dot(sums[r][v], w[v], xq);
    }
  }
}

/// The same for int4, where quad q holds inputs 4q … 4q+3 and, in the upper halves, 16 further.
template <int kRows>
inline void dot_nibble_group(const char* group, int64_t g, const QuantizedRows& x, Prefetch& ahead,
                             NibbleSums (&sums)[kRows][kPanelVecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) set(sums[r][v], kFirstSum);
  }
  constexpr int kParts = kGroupSize / 8;
  ahead.begin_step<kParts, false>();
#pragma GCC unroll 4
  for (int quad = 0; quad < kParts; ++quad) {
    ahead.part_of_step<kParts, false>(quad);
    Quads low[kPanelVecs], high[kPanelVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) {
      const Quads bytes = load_quads(group + (quad * kPanelVecs + v) * 4 * Vec::kSize);
      low[v] = low_nibbles(bytes);
      high[v] = high_nibbles(bytes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Quads x_low = broadcast_quad(x.quad(r, g, quad));
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) add_nibble_dot(sums[r][v], low[v], x_low);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Quads x_high = broadcast_quad(x.quad(r, g, quad + kParts));
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v) add_nibble_dot(sums[r][v], high[v], x_high);
    }
  }
}

/// tile[r][n] (+)= the groups begin … end-1 of a panel; `begin` 0 starts the tile.
template <const WeightFormat& kFormat, int kRows>
void quantized_tile(const char* panel, int64_t begin, int64_t end, const QuantizedRows& x,
                    float* tile, Prefetch ahead) {
  Vec total[kRows][kPanelVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) {
      total[r][v] = begin == 0 ? zero() : load(tile + r * kPanel + v * Vec::kSize);
    }
  }
  for (int64_t g = begin; g < end; ++g) {
    const char* group = panel + g * group_bytes(kFormat);
    std::conditional_t<kFormat.type == WeightType::kInt8, Sums, NibbleSums> sums[kRows][kPanelVecs];
    if constexpr (kFormat.type == WeightType::kInt8) {
      dot_group<kRows>(group, g, x, ahead, sums);
    } else {
      dot_nibble_group<kRows>(group, g, x, ahead, sums);
    }
    ahead.end_step();
    const Float16* scales = group_scales(group, kFormat);
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) {
      const SumScale scale = sum_scale(load(scales + v * Vec::kSize));
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        total[r][v] = fma(scaled(sums[r][v], scale), broadcast(x.scale(r, g)), total[r][v]);
      }
      if constexpr (kFormat.has_minimum) {
        const Vec minimum = load(scales + kPanel + v * Vec::kSize);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          total[r][v] = fma(minimum, broadcast(x.scaled_sum(r, g)), total[r][v]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanelVecs; ++v) store(total[r][v], tile + r * kPanel + v * Vec::kSize);
  }
}

template <const WeightFormat& kFormat>
struct QuantizedKernel {
  static constexpr int kMaxRows = kFormat.type == WeightType::kInt8 ? kInt8Rows : kInt4Rows;

  static void compute(const LinearParams& params, int64_t panel, int32_t first_row, int32_t rows,
                      float* tile) {
    const char* weights = panel_data(*params.weight, panel);
    const int64_t groups = num_groups(params.weight->num_inputs);
    for (int64_t g = 0; g < groups; g += kGroupBlock) {
      const int64_t end = std::min(g + kGroupBlock, groups);
      for_row_tiles<kMaxRows>(rows, [&](int32_t row, auto tile_rows, int t, int num_tiles) {
        quantized_tile<kFormat, decltype(tile_rows)::value>(
            weights, g, end, QuantizedRows(params.in, first_row + row),
            tile + int64_t{row} * kPanel,
            Prefetch::share<group_bytes(kFormat)>(weights + g * group_bytes(kFormat), end - g, t,
                                                  num_tiles));
      });
    }
  }
};

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
