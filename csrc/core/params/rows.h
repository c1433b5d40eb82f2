// The packed rows of a forward, and the kernels that work row by row.
//
// Parameter structs that cross the border from host code to kernels: plain data, one per kernel.
// Dimension letters: B sequences, N nodes (root included), R rows, P longest path, L layers,
// H hidden size, Q query heads, G KV heads, D head size, S cache rows, V vocabulary, K Medusa
// heads. Strides are in elements and offsets int64_t. Kernels trust what they are given.
#pragma once

#include <cstdint>

#include "core/activations.h"
#include "core/packed_matrix.h"

namespace medusa {

/// The R packed rows of one forward: the nodes of every sequence taking part, one sequence after
/// another, or the chunk of a prompt. A node's K/V goes to cache row `length + node`.
struct RowTable {
  int32_t num_rows = 0;                  // R
  int32_t num_sequences = 0;             // B' taking part, at most the cache's B
  int32_t mask_words = 0;                // W, 64-bit words per row of `ancestors`
  const int32_t* tokens = nullptr;       // [R]
  const int32_t* sequences = nullptr;    // [R], 0 … B'-1, ascending
  const int32_t* positions = nullptr;    // [R], length + depth
  const int32_t* nodes = nullptr;        // [R], index within the sequence's nodes
  const int32_t* first_rows = nullptr;   // [B' + 1]
  const int32_t* cache_slots = nullptr;  // [B'], the sequence's row of the cache; may repeat
  const int32_t* lengths = nullptr;      // [B'], cache rows that are valid for every row
  /// [R, W]; bit j is set when node j of the same sequence is the node itself or an ancestor.
  /// null: every sequence is a chain (a prompt chunk, plain decoding): node j sees nodes 0 … j.
  const uint64_t* ancestors = nullptr;
};

struct EmbedParams {
  int32_t num_rows = 0;
  const int32_t* tokens = nullptr;      // [R]
  const PackedMatrix* table = nullptr;  // [V, H]
  float* out = nullptr;                 // [R, H]
};

/// out = x / rms(x) * weight, RMS over H with `epsilon` inside the root; or, with `add_to`, that
/// much is added to a residual stream and nothing else written.
struct RmsNormParams {
  int32_t num_rows = 0;
  int32_t width = 0;  // H
  float epsilon = 0;
  const float* x = nullptr;       // [R, H]
  const float* weight = nullptr;  // [H]
  Activations out;                // [R, H]
  float* out_float = nullptr;     // [R, H] float32 copy as well, or null
  float* add_to = nullptr;        // [R, H] or null
};

/// Row-wise conversion of float32 rows into the form a matrix product reads.
struct QuantizeParams {
  int32_t num_rows = 0;
  int32_t width = 0;
  const float* x = nullptr;  // [R, width]
  Activations out;
};

}  // namespace medusa
