// Rows of a matrix product cut into tiles whose sums fit the registers.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// f(std::integral_constant<int, value>) for 1 <= value <= kMax.
template <int kMax, typename F>
inline void with_constant(int value, F&& f) {
  if constexpr (kMax > 1) {
    if (value < kMax) return with_constant<kMax - 1>(value, f);
  }
  f(std::integral_constant<int, kMax>{});
}

/// Cuts `rows` into tiles of at most kMaxRows that differ by at most one row, and calls
/// f(first_row, std::integral_constant<int, rows of the tile>).
template <int kMaxRows, typename F>
inline void for_row_tiles(int32_t rows, F&& f) {
  const int32_t num_tiles = (rows + kMaxRows - 1) / kMaxRows;
  for (int32_t t = 0; t < num_tiles; ++t) {
    const auto begin = static_cast<int32_t>(int64_t{rows} * t / num_tiles);
    const auto end = static_cast<int32_t>(int64_t{rows} * (t + 1) / num_tiles);
    with_constant<kMaxRows>(end - begin, [&](auto tile_rows) { f(begin, tile_rows); });
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
