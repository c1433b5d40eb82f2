// Tiles of a matrix product with float32, bfloat16 or float16 weights.
//
// Order of every sum over K: within a block of kFloatBlock inputs, ascending from zero by fused
// multiply-adds; block sums are added in ascending order.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kFloatBlock = 256;

/// Inputs that one step of the loop over K takes, and their weights as float32.
template <typename W>
struct WeightReader {
  static constexpr int kInputs = 1;
  static void read(const W* w, Vec (&out)[kInputs]) { out[0] = load(w); }
};

template <>
struct WeightReader<BFloat16> {
  static constexpr int kInputs = 2;
  static void read(const BFloat16* w, Vec (&out)[kInputs]) {
    load_bfloat16_pairs(w, out[0], out[1]);
  }
};

/// Inputs to a step of Prefetch.
constexpr int kFloatStep = 4;

/// tile[r][n] (+)= sum over `count` inputs of x[r][k] * w[k][n]; `starts` starts the tile.
template <typename W, int kRows>
void float_tile(const W* w, int count, const float* x, int64_t x_stride, float* tile, bool starts,
                Prefetch ahead) {
  constexpr int kInputs = WeightReader<W>::kInputs;
  Vec acc[kRows][kPanelVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) acc[r][v] = zero();
  }
  const auto step = [&](int k, auto inputs) {
    Vec weight[kPanelVecs][kInputs];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) {
      WeightReader<W>::read(w + (k * kPanel + v * Vec::kSize * kInputs), weight[v]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < decltype(inputs)::value; ++i) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Vec value = broadcast(x[r * x_stride + k + i]);
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVecs; ++v) acc[r][v] = fma(value, weight[v][i], acc[r][v]);
      }
    }
  };
  constexpr std::integral_constant<int, kInputs> kWhole;
  int k = 0;
  for (; k + kFloatStep <= count; k += kFloatStep) {
    // With two inputs at a time there is too little arithmetic between.
    constexpr int kParts = kInputs == 1 ? kFloatStep : 0;
    ahead.begin_step<kParts, true>();
#pragma GCC unroll 4
    for (int i = 0; i < kFloatStep; i += kInputs) {
      if constexpr (kParts > 0) ahead.part_of_step<kParts, true>(i);
      step(k + i, kWhole);
    }
    ahead.end_step();
  }
  for (; k + kInputs <= count; k += kInputs) step(k, kWhole);
  if (k < count) step(k, std::integral_constant<int, 1>{});  // an odd last bfloat16 input
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVecs; ++v) {
      float* out = tile + r * kPanel + v * Vec::kSize;
      store(starts ? acc[r][v] : load(out) + acc[r][v], out);
    }
  }
}

template <typename W>
struct FloatKernel {
  static constexpr int kMaxRows = kFloatRows;

  /// tile [rows, kPanel] of one panel, for rows first_row … first_row + rows - 1.
  static void compute(const LinearParams& params, int64_t panel, int32_t first_row, int32_t rows,
                      float* tile) {
    const PackedMatrix& matrix = *params.weight;
    const W* weights = reinterpret_cast<const W*>(panel_data(matrix, panel));
    const float* x = float_row(params.in, first_row);
    const int64_t stride =
        activation_row_bytes(kFloatActivations, params.in.width) / int64_t{sizeof(float)};
    for (int32_t k = 0; k < matrix.num_inputs; k += kFloatBlock) {
      const int count = std::min(kFloatBlock, matrix.num_inputs - k);
      const W* block = weights + int64_t{k} * kPanel;
      for_row_tiles<kMaxRows>(rows, [&](int32_t row, auto tile_rows, int t, int num_tiles) {
        float_tile<W, decltype(tile_rows)::value>(
            block, count, x + row * stride + k, stride, tile + int64_t{row} * kPanel, k == 0,
            Prefetch::share<kFloatStep * kPanel * int64_t{sizeof(W)}>(
                reinterpret_cast<const char*>(block), count / kFloatStep, t, num_tiles));
      });
    }
  }
};

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
