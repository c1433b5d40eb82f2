// What a decoding step needs beside the kernel table to run on the device alone, as one graph:
// drafts of the host join the tree, and tokens reach the host without a copy being enqueued.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/context.h"

namespace medusa::cuda {

/// Joins drafts that the host found (prompt lookup) with the heads' tree. A draft whose token is
/// already a child of its parent is that child; others are appended while there is room for nodes
/// and depth; a draft whose parent found no room is dropped. Nodes behind the last one are padding:
/// parent -1, token -1.
struct MergeDraftsParams {
  int32_t num_sequences = 0;  // B
  // The heads' tree, one topology for all sequences.
  int32_t num_base_nodes = 0;             // N0, the root included
  const int32_t* base_parents = nullptr;  // [N0]
  const int32_t* base_tokens = nullptr;   // [B, N0], as `candidates` writes them
  // The drafts, in pinned host memory, filled before the step is launched.
  int32_t max_drafts = 0;                  // M
  const int32_t* draft_tokens = nullptr;   // [B, M]
  const int32_t* draft_parents = nullptr;  // [B, M], an earlier draft, or -1: the root
  const int32_t* num_drafts = nullptr;     // [B]
  // The step's trees.
  int32_t max_nodes = 0;         // N, at least N0
  int32_t max_path = 0;          // nodes on a path, the root included
  int32_t* tokens = nullptr;     // [B, N]
  int32_t* parents = nullptr;    // [B, N]
  int32_t* num_nodes = nullptr;  // [B]
};
cudaError_t merge_drafts(const CudaContext& context, const MergeDraftsParams& params);

/// Results of steps in pinned host memory: step i writes entry i % capacity. See `StepRing`.
struct StepEntries {
  int32_t capacity = 0;
  int32_t* tokens = nullptr;    // [capacity, B, P] emitted tokens
  int32_t* counts = nullptr;    // [capacity, B]
  int32_t* finished = nullptr;  // [capacity, B], 1 from the step on that emitted an end token
  uint64_t* steps = nullptr;    // [capacity], i + 1 once step i's entry is complete
};

/// What a step emits: the tokens of the path behind the root, then the next root. Behind the first
/// end token nothing is emitted: `count` and `next_root` are cut there, so that `compact` keeps
/// what plain decoding would have kept, and the sequence emits nothing from then on.
struct PublishParams {
  int32_t num_sequences = 0;            // B
  int32_t max_nodes = 0;                // N
  int32_t max_path = 0;                 // P
  const int32_t* first_rows = nullptr;  // [B] or null, as in AcceptParams
  const int32_t* tokens = nullptr;      // [B, N] or packed
  const int32_t* path = nullptr;        // [B, P]
  int32_t* count = nullptr;             // [B]
  int32_t* next_root = nullptr;         // [B]
  int32_t num_end_tokens = 0;           // E
  const int32_t* end_tokens = nullptr;  // [E]
  int32_t* finished = nullptr;          // [B], 0 before the first step
  uint64_t* step = nullptr;             // [1], 0 before the first step
  StepEntries entries;
};
cudaError_t publish(const CudaContext& context, const PublishParams& params);

}  // namespace medusa::cuda
