// Tiles of a matrix product with int8 or int4 weights and int8 activations.
//
// Order of every sum over K: exact integer sums inside a group of 32; then, group by group in
// ascending order, fma(float(sum) * weight_scale, activation_scale, total), and for int4 also
// fma(weight_minimum, activation_scaled_sum, total).
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Groups whose weights (a panel's) stay in the first-level cache while the row tiles pass.
constexpr int64_t kGroupBlock = 24;

/// int8 activations of consecutive rows: strides are bytes.
struct QuantizedRows {
  const int8_t* values;
  const float* scales;
  const int32_t* offsets;
  const float* scaled_sums;
  int64_t stride;

  template <typename T>
  static const T& at(const T* p, int64_t stride_bytes) {
    return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(p) + stride_bytes);
  }
  float scale(int r, int64_t g) const { return at(scales + g, r * stride); }
  int32_t offset(int r, int64_t g) const { return at(offsets + g, r * stride); }
  float scaled_sum(int r, int64_t g) const { return at(scaled_sums + g, r * stride); }
};

/// tile[r][n] (+)= the groups begin … end-1 of a panel; `begin` 0 starts the tile.
template <DType kFormat, int kRows>
void quantized_tile(const char* panel, int64_t begin, int64_t end, const QuantizedRows& x,
                    float* tile) {
  Vec total[kRows][kPanelVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kPanelVecs; ++v) {
      total[r][v] = begin == 0 ? zero() : load(tile + r * kPanel + v * Vec::kSize);
    }
  }
  for (int64_t g = begin; g < end; ++g) {
    const char* group = panel + g * group_bytes(kFormat);
    for (int64_t b = 0; b < group_bytes(kFormat); b += 64) prefetch(group + kPrefetchBytes + b);
    Sums sums[kRows][kPanelVecs];
    if constexpr (kFormat == DType::kInt8) {
      if constexpr (kWeightOffset != 0) {
        for (int r = 0; r < kRows; ++r) {
          for (int v = 0; v < kPanelVecs; ++v) sums[r][v] = broadcast_sums(x.offset(r, g));
        }
      } else {
        for (int r = 0; r < kRows; ++r) {
          for (int v = 0; v < kPanelVecs; ++v) sums[r][v] = broadcast_sums(0);
        }
      }
      dot_int8<kRows>(group, x.values + g * kGroupSize, x.stride, sums);
    } else {
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kPanelVecs; ++v) sums[r][v] = broadcast_sums(0);
      }
      dot_int4<kRows>(group, x.values + g * kGroupSize, x.stride, sums);
    }
    const Float16* scales = reinterpret_cast<const Float16*>(
        group + kPanel * (kFormat == DType::kInt8 ? kGroupSize : kGroupSize / 2));
    for (int v = 0; v < kPanelVecs; ++v) {
      const Vec scale = load(scales + v * Vec::kSize);
      for (int r = 0; r < kRows; ++r) {
        total[r][v] = fma(to_vec(sums[r][v]) * scale, broadcast(x.scale(r, g)), total[r][v]);
      }
      if constexpr (kFormat == DType::kInt4) {
        const Vec minimum = load(scales + kPanel + v * Vec::kSize);
        for (int r = 0; r < kRows; ++r) {
          total[r][v] = fma(minimum, broadcast(x.scaled_sum(r, g)), total[r][v]);
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kPanelVecs; ++v) store(total[r][v], tile + r * kPanel + v * Vec::kSize);
  }
}

template <DType kFormat>
struct QuantizedKernel {
  static constexpr int kMaxRows = kQuantizedRows;

  static void compute(const LinearParams& params, int64_t panel, int32_t first_row, int32_t rows,
                      float* tile) {
    const char* weights = panel_data(*params.weight, panel);
    const Int8Row first = int8_row(params.in, first_row);
    const int64_t stride = activation_row_bytes(DType::kInt8, params.in.width);
    const int64_t groups = num_groups(params.weight->num_inputs);
    for (int64_t g = 0; g < groups; g += kGroupBlock) {
      for_row_tiles<kMaxRows>(rows, [&](int32_t row, auto tile_rows) {
        const QuantizedRows x{first.values + row * stride,
                              &QuantizedRows::at(first.scales, row * stride),
                              &QuantizedRows::at(first.offsets, row * stride),
                              &QuantizedRows::at(first.scaled_sums, row * stride), stride};
        quantized_tile<kFormat, decltype(tile_rows)::value>(
            weights, g, std::min(g + kGroupBlock, groups), x, tile + int64_t{row} * kPanel);
      });
    }
  }
};

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
