// Medusa heads: their inputs, their candidates, and drafts made of them.
// Dimension letters and conventions: core/params/rows.h.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace medusa {

/// Head logits to node tokens: top-k ids of every head, then node n of depth d > 0 takes rank
/// ranks[n] of head d - 1; node 0 takes the root token.
struct CandidatesParams {
  int32_t num_sequences = 0;  // B
  int32_t num_heads = 0;      // K
  int64_t width = 0;          // V, or the size of the draft vocabulary
  int32_t top_k = 0;          // k <= 32
  int32_t num_nodes = 0;      // N
  DType dtype = DType::kFloat32;
  const void* logits = nullptr;        // [B, K, V]
  const int32_t* token_map = nullptr;  // [V] draft id -> token id, or null
  const int32_t* roots = nullptr;      // [B]
  const int32_t* depths = nullptr;     // [N]
  const int32_t* ranks = nullptr;      // [N]
  int32_t* top_ids = nullptr;          // [B, K, k] token ids, best first, ties to the lowest id
  float* top_log_probs = nullptr;      // [B, K, k] log-softmax over V, or null
  int32_t* tokens = nullptr;           // [B, N]
};

/// Ranks of a head's candidates that a draft can stand for.
constexpr int32_t kMaxHeadRanks = 32;

/// A draft that stands for the candidate of that rank of head k (0-based) until the heads have run;
/// tokens themselves are not negative.
constexpr int32_t head_draft(int32_t k, int32_t rank) { return -1 - (k * kMaxHeadRanks + rank); }

/// Makes trees of drafts whose tokens the host partly leaves to the heads. Nodes keep their places.
/// Of siblings with equal tokens the first stands for all, children included. Such doubles, drafts
/// without a candidate, what hangs below them, and the places after the last node become padding:
/// roots of their own (parent -1) with the root's token.
struct MergeDraftsParams {
  int32_t num_sequences = 0;  // B'
  int32_t max_nodes = 0;      // N
  // Written by the host before the step; the device reads them in place.
  const int32_t* draft_tokens = nullptr;   // [B', N], a token or a head_draft
  const int32_t* draft_parents = nullptr;  // [B', N], -1 at the root, else an earlier node
  const int32_t* num_drafts = nullptr;     // [B'], nodes, the root included
  int32_t num_heads = 0;                   // K
  int32_t top_k = 0;                       // k
  const int32_t* top_ids = nullptr;        // [B', K, k], -1: no such candidate; unused if K = 0
  int32_t* tokens = nullptr;               // [B', N]
  int32_t* parents = nullptr;              // [B', N]
  int32_t* num_nodes = nullptr;            // [B'], as num_drafts
};

/// Keeps the hidden state of each sequence's last accepted node:
/// out[slots[b]] = hidden[first_rows[b] + path[b, count[b] - 1]].
struct GatherHiddenParams {
  int32_t num_sequences = 0;            // B'
  int32_t width = 0;                    // H
  int32_t max_path = 0;                 // P
  const float* hidden = nullptr;        // [R, H]
  const int32_t* first_rows = nullptr;  // [B']
  const int32_t* path = nullptr;        // [B', P]
  const int32_t* count = nullptr;       // [B'], at least 1
  const int32_t* slots = nullptr;       // [B']
  float* out = nullptr;                 // [B, H]
};

/// What the first ResBlocks of K Medusa heads read and add to. Root-conditioned heads read the
/// hidden state x followed by the root token's embedding e scaled to its size,
/// e * rms(x) / rms(e).
struct HeadInputsParams {
  int32_t num_sequences = 0;              // B'
  int32_t num_heads = 0;                  // K
  int32_t width = 0;                      // H
  const float* hidden = nullptr;          // [B, H]
  const int32_t* slots = nullptr;         // [B'], rows of `hidden`
  const float* root_embedding = nullptr;  // [B', H], or null: plain heads
  float* inputs = nullptr;                // [B', H] or [B', 2H]
  float* blocks = nullptr;                // [B', K, H], K copies of x
};

}  // namespace medusa
