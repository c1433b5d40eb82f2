// Which keys a row of tree attention sees: the prefix, its ancestors and itself, within its window.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/params/rows.h"

namespace medusa::cuda {

__device__ __forceinline__ uint64_t low_bits(int count) {
  if (count >= 64) return ~uint64_t{0};
  return count <= 0 ? 0 : (uint64_t{1} << count) - 1;
}

/// Bits of a row's ancestor mask from bit `offset` on; a negative offset shifts them up.
__device__ __forceinline__ uint64_t mask_bits(const uint64_t* words, int num_words, int offset) {
  if (offset < 0) return offset <= -64 ? 0 : words[0] << -offset;
  const int word = offset / 64, shift = offset % 64;
  uint64_t bits = word < num_words ? words[word] >> shift : 0;
  if (shift != 0 && word + 1 < num_words) bits |= words[word + 1] << (64 - shift);
  return bits;
}

/// Drops the ancestors of a tree node that are `window` or more positions back: the lowest bits of
/// its mask, since ancestors come in the order of their depth. `tail` are its bits from `offset`
/// on.
__device__ __forceinline__ uint64_t drop_far_ancestors(uint64_t tail, const uint64_t* words,
                                                       int offset, int num_dropped) {
  for (int j = 0; j < offset; j += 64) {
    num_dropped -= __popcll(words[j / 64] & low_bits(offset - j));
  }
  for (; num_dropped > 0 && tail != 0; --num_dropped) tail &= tail - 1;
  return tail;
}

/// Bit c of the result: row `row` of a sequence with `length` prefix rows sees cache row
/// first_key + c. Prefix rows are at the position of their index, a tree's at length + depth.
__device__ __forceinline__ uint64_t visible_keys(const RowTable& rows, int64_t row, int length,
                                                 int window, int first_key) {
  const int node = rows.nodes[row];
  const int offset = first_key - length;  // node of bit 0
  const int first_position = window > 0 ? rows.positions[row] - window + 1 : 0;
  if (rows.ancestors == nullptr) {
    return low_bits(node + 1 - offset) & ~low_bits(first_position - first_key);
  }
  const uint64_t* words = rows.ancestors + row * rows.mask_words;
  uint64_t tail = mask_bits(words, rows.mask_words, offset);
  if (first_position > length) {
    tail = drop_far_ancestors(tail, words, offset, first_position - length);
  }
  return (low_bits(-offset) & ~low_bits(first_position - first_key)) | tail;
}

}  // namespace medusa::cuda
