// A step around the forward: rows of trees, acceptance, results.
// Dimension letters and conventions: core/params/rows.h.
#pragma once

#include <cstdint>

namespace medusa {

/// The rows of B padded trees, [B, N] nodes each: what a `RowTable` holds, made from the parents.
/// A node whose parent is -1 is a root; after the first node such roots are padding.
struct TreeRowsParams {
  int32_t num_sequences = 0;         // B
  int32_t num_nodes = 0;             // N
  int32_t mask_words = 0;            // W
  const int32_t* parents = nullptr;  // [B, N], -1 or an earlier node
  const int32_t* lengths = nullptr;  // [B]
  int32_t* sequences = nullptr;      // [B * N]
  int32_t* positions = nullptr;      // [B * N]
  int32_t* nodes = nullptr;          // [B * N]
  int32_t* first_rows = nullptr;     // [B + 1]
  int32_t* cache_slots = nullptr;    // [B], sequence b is slot b; or null: they are known
  uint64_t* ancestors = nullptr;     // [B * N, W]
};

/// Greedy or sampled acceptance: from the root, descend to the child whose token is the node's
/// target; stop where there is none.
///
/// Per-node arrays are [B, N], or packed when `first_rows` is set: the nodes of sequence b start at
/// row first_rows[b] then.
struct AcceptParams {
  int32_t num_sequences = 0;            // B
  int32_t max_nodes = 0;                // N
  int32_t max_path = 0;                 // P
  const int32_t* first_rows = nullptr;  // [B] or null
  const int32_t* tokens = nullptr;      // [B, N]
  const int32_t* targets = nullptr;     // [B, N]
  const int32_t* parents = nullptr;     // [B, N], -1 at the root, else an earlier node
  const int32_t* num_nodes = nullptr;   // [B]
  int32_t* path = nullptr;              // [B, P], node indices from the root on, -1 after the end
  int32_t* count = nullptr;             // [B], nodes on the path, the root included
  int32_t* next_root = nullptr;         // [B], the target of the last accepted node
};

/// Results of steps in host memory that the device writes in place: step i goes to entry
/// i % capacity. Paths and counts are those of `PublishParams`, cut at the end token.
struct StepEntries {
  int32_t capacity = 0;
  int32_t num_sequences = 0;  // B, that an entry has room for
  int32_t max_path = 0;       // P, likewise
  int32_t* tokens = nullptr;  // [capacity, B, P], what the step emits
  int32_t* paths = nullptr;   // [capacity, B, P]
  int32_t* counts = nullptr;  // [capacity, B], entries of either
  int32_t* steps = nullptr;   // [capacity], the step's number, once all else is there
};

/// What a step emits: the tokens of the path after the root, then the next root. After the first
/// end token nothing is emitted: it becomes the next root and `count` is cut, so that `compact`
/// keeps what plain decoding would have kept.
struct PublishParams {
  int32_t num_sequences = 0;            // B'
  int32_t max_path = 0;                 // P of `path`
  const int32_t* first_rows = nullptr;  // [B']
  const int32_t* tokens = nullptr;      // [R]
  const int32_t* path = nullptr;        // [B', P]
  int32_t* count = nullptr;             // [B']
  int32_t* next_root = nullptr;         // [B']
  const int32_t* slots = nullptr;       // [B'], rows of `end_tokens`
  int32_t num_end_tokens = 0;           // E
  const int32_t* end_tokens = nullptr;  // [B, E], -1 after a slot's own
  const int32_t* step = nullptr;        // [1], this step's number, at least 1
  StepEntries entries;
};

}  // namespace medusa
