// Rows of a matrix product cut into tiles whose sums fit the registers.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// How far ahead of the arithmetic the weights are asked for: some microseconds of memory latency
/// at full bandwidth, and past the page borders at which the hardware's prefetchers stop. They go
/// to the second-level cache: the first waits for few lines at a time, and the block that the row
/// tiles pass over needs most of it.
constexpr int64_t kPrefetchBytes = 16384;

/// How far ahead they are asked for once more, by the first-level cache, where they are read faster
/// than the hardware moves them up.
constexpr int64_t kNearBytes = 2048;

/// A tile's part of asking for the weights ahead. All row tiles pass over a block of weights, so
/// that each asks for its share of the lines and memory stays busy while the later ones compute.
struct Prefetch {
  const char* next;
  int lines;  // per step

  /// Tile `tile` of `num_tiles` over a block of `num_steps` steps of kStepBytes.
  template <int64_t kStepBytes>
  static Prefetch share(const char* block, int64_t num_steps, int tile, int num_tiles) {
    constexpr int kLines = static_cast<int>((kStepBytes + 63) / 64);
    const int lines = (kLines + num_tiles - 1) / num_tiles;
    const int first = lines * tile;
    return {block + kPrefetchBytes + num_steps * first * 64, std::clamp(kLines - first, 0, lines)};
  }

  /// A step has kParts, each of which asks for a line or two amid its arithmetic, where a burst of
  /// them would wait for the cache. Lines beyond these are asked for at once; where a tile's share
  /// is less than a line a part, some are asked for twice.
  template <int kParts, bool kNear>
  void begin_step() {
    for (int i = lines < 2 * kParts ? kParts : 2 * kParts; i < lines; ++i) line<kNear>(i);
  }
  template <int kParts, bool kNear>
  void part_of_step(int part) {
    line<kNear>(part);
    if (lines >= 2 * kParts) line<kNear>(kParts + part);
  }
  void end_step() { next += lines * 64; }

  template <bool kNear>
  void line(int i) const {
    __builtin_prefetch(next + i * 64, 0, 2);
    if constexpr (kNear) prefetch(next + i * 64 + kNearBytes - kPrefetchBytes);
  }
};

/// f(std::integral_constant<int, value>) for 1 <= value <= kMax.
template <int kMax, typename F>
inline void with_constant(int value, F&& f) {
  if constexpr (kMax > 1) {
    if (value < kMax) return with_constant<kMax - 1>(value, f);
  }
  f(std::integral_constant<int, kMax>{});
}

/// Cuts `rows` into tiles of at most kMaxRows that differ by at most one row, and calls
/// f(first_row, std::integral_constant<int, rows of the tile>, tile, number of tiles).
template <int kMaxRows, typename F>
inline void for_row_tiles(int32_t rows, F&& f) {
  const int32_t num_tiles = (rows + kMaxRows - 1) / kMaxRows;
  const int32_t size = rows / num_tiles, num_larger = rows % num_tiles;
  int32_t row = 0;
  for (int32_t t = 0; t < num_tiles; ++t) {
    const int32_t count = size + (t < num_larger ? 1 : 0);
    with_constant<kMaxRows>(count, [&](auto tile_rows) { f(row, tile_rows, t, num_tiles); });
    row += count;
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
