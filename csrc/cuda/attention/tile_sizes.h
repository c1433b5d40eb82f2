// Sizes of the tensor-core attention kernel by head size.
#pragma once

#include "core/params/cache.h"

namespace medusa::cuda {

/// Sizes that follow from the head size. Rows of a tile in shared memory are 16 bytes longer than
/// their data: an odd number of 16-byte units, so that the eight rows of an ldmatrix are in
/// different banks.
template <int kHeadSize>
struct TileSizes {
  static constexpr int kRows = 16;                         // of a warp
  static constexpr int kKeys = kHeadSize <= 80 ? 64 : 32;  // of a tile of K or V
  static_assert(kPageRows % kKeys == 0, "a page's end cuts no tile");
  static constexpr int kMaxWarps = kHeadSize <= 128 ? 8 : 4;
  static constexpr int kStride = kHeadSize + 8;  // 16-bit elements
  static constexpr int kTileElements = kKeys * kStride;
  static constexpr int kStages = 2;
  // Up to 128 the fragments of Q stay in registers; beyond, they would spill.
  static constexpr bool kSharedQ = kHeadSize > 128;
  static constexpr int kKSteps = kHeadSize / 16;  // of a product over the head size
  static constexpr int kUnrolledKSteps = kSharedQ ? 2 : kKSteps;
  static constexpr int kKeyTiles = kKeys / 8;      // columns of S, 8 to an mma
  static constexpr int kOutTiles = kHeadSize / 8;  // columns of the output

  static constexpr int shared_bytes(int num_warps) {
    return (kStages * 2 * kTileElements + (kSharedQ ? num_warps * kRows * kStride : 0)) * 2;
  }
};

}  // namespace medusa::cuda
