// Rows of a matrix product cut into tiles whose sums fit the registers.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// How far ahead of the arithmetic the weights are asked for: the hardware's own prefetchers stop
/// at page borders.
constexpr int64_t kPrefetchBytes = 4096;

template <int64_t kBytes>
inline void prefetch_block(const char* p) {
#pragma GCC unroll 32
  for (int64_t b = 0; b < kBytes; b += 64) prefetch(p + b);
}

/// f(std::integral_constant<int, value>) for 1 <= value <= kMax.
template <int kMax, typename F>
inline void with_constant(int value, F&& f) {
  if constexpr (kMax > 1) {
    if (value < kMax) return with_constant<kMax - 1>(value, f);
  }
  f(std::integral_constant<int, kMax>{});
}

/// Cuts `rows` into tiles of at most kMaxRows that differ by at most one row, and calls
/// f(first_row, std::integral_constant<int, rows of the tile>, whether it is the first tile).
template <int kMaxRows, typename F>
inline void for_row_tiles(int32_t rows, F&& f) {
  const int32_t num_tiles = (rows + kMaxRows - 1) / kMaxRows;
  const int32_t size = rows / num_tiles, num_larger = rows % num_tiles;
  int32_t row = 0;
  for (int32_t t = 0; t < num_tiles; ++t) {
    const int32_t count = size + (t < num_larger ? 1 : 0);
    with_constant<kMaxRows>(count, [&](auto tile_rows) {
      if (t == 0) {
        f(row, tile_rows, std::true_type{});
      } else {
        f(row, tile_rows, std::false_type{});
      }
    });
    row += count;
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
