// Parameter structs that cross the border from host code to kernels: plain data, one per kernel.
// Dimension letters: B sequences, N nodes (root included), R rows, P longest path, L layers,
// H hidden size, Q query heads, G KV heads, D head size, S cache rows, V vocabulary, K Medusa
// heads. Strides are in elements and offsets int64_t. Kernels trust what they are given.
#pragma once

#include <cstdint>

#include "core/dtype.h"
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
  const int32_t* cache_slots = nullptr;  // [B'], the sequence's row of the cache
  const int32_t* lengths = nullptr;      // [B'], cache rows that are valid for every row
  /// [R, W]; bit j is set when node j of the same sequence is the node itself or an ancestor.
  /// null: every sequence is a chain (a prompt chunk, plain decoding): node j sees nodes 0 … j.
  const uint64_t* ancestors = nullptr;
};

/// The rows of B padded trees, [B, N] nodes each: what a `RowTable` holds, made from the parents.
/// A node whose parent is -1 is a root; behind the first node such roots are padding.
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

/// K and V of one layer, [B, G, S, D] each with these strides and D contiguous.
struct KvCache {
  DType dtype = DType::kFloat32;
  int32_t num_kv_heads = 0;  // G
  int32_t head_size = 0;     // D
  int32_t num_rows = 0;      // S
  int64_t slot_stride = 0;
  int64_t head_stride = 0;
  int64_t row_stride = 0;
  void* k = nullptr;
  void* v = nullptr;
  /// [B, G, S] float32 each, contiguous; int8 only: one scale per head and row.
  float* k_scales = nullptr;
  float* v_scales = nullptr;
};

struct EmbedParams {
  int32_t num_rows = 0;
  const int32_t* tokens = nullptr;      // [R]
  const PackedMatrix* table = nullptr;  // [V, H]
  float* out = nullptr;                 // [R, H]
};

/// out = x / rms(x) * weight, RMS over H with `epsilon` inside the root.
struct RmsNormParams {
  int32_t num_rows = 0;
  int32_t width = 0;  // H
  float epsilon = 0;
  const float* x = nullptr;       // [R, H]
  const float* weight = nullptr;  // [H]
  Activations out;                // [R, H]
  float* out_float = nullptr;     // [R, H] float32 copy as well, or null
};

/// Row-wise conversion of float32 rows into the form a matrix product reads.
struct QuantizeParams {
  int32_t num_rows = 0;
  int32_t width = 0;
  const float* x = nullptr;  // [R, width]
  Activations out;
};

enum class Epilogue : int32_t {
  kStore = 0,    // out = xW + bias
  kAdd = 1,      // out += xW + bias: the residual stream
  kSiluMul = 2,  // is_gate_up weights, N = 2F: out[:, f] = silu(gate_f) * up_f
  kArgmax = 3,   // nothing stored but the arg-max over N of each row; ties to the lowest id
  kSiluAdd = 4,  // out += silu(xW + bias): a Medusa ResBlock
};

/// out[r, n] = sum_k in[r, k] * weight[n, k]. A row's bits never depend on R or the thread count.
struct LinearParams {
  int32_t num_rows = 0;                  // R
  Activations in;                        // [R, K]
  const PackedMatrix* weight = nullptr;  // [N, K]
  const float* bias = nullptr;           // [N] or null
  Epilogue epilogue = Epilogue::kStore;
  float* out = nullptr;  // [R, N], row stride out_stride; kSiluMul: [R, N/2]; unused: null
  int64_t out_stride = 0;
  Activations out_activations;  // kSiluMul: written instead of `out` when its data is set
  int32_t* argmax = nullptr;    // [R] kArgmax
  float* max_value = nullptr;   // [R] kArgmax, or null
};

/// Rotates Q and K by position (Hugging Face's half-split layout), normalises heads first where the
/// family does (Qwen3), and appends K and V to the cache at row length + node.
struct RopeAppendParams {
  RowTable rows;
  KvCache cache;
  int32_t num_query_heads = 0;     // Q
  float* qkv = nullptr;            // [R, (Q + 2G) * D]; Q is rotated in place
  const float* cos_sin = nullptr;  // [max positions, D]: cos of D/2 frequencies, then sin
  const float* q_norm = nullptr;   // [D] or null
  const float* k_norm = nullptr;   // [D] or null
  float epsilon = 0;
};

/// Attention of each row over the prefix, its ancestors and itself.
struct TreeAttentionParams {
  RowTable rows;
  KvCache cache;
  int32_t num_query_heads = 0;  // Q, a multiple of G
  int32_t sliding_window = 0;   // 0: none; else keys at positions > position - window are seen
  float scale = 0;              // usually 1 / sqrt(D)
  DType q_dtype = DType::kFloat32;
  const void* q = nullptr;      // [R, Q, D]
  int64_t q_row_stride = 0;     // elements from one row to the next; heads are contiguous
  void* out = nullptr;          // [R, Q, D] contiguous, in q_dtype
  Activations out_activations;  // written instead of `out` when its data is set (width Q * D)
};

/// Arg-max of float rows; ties go to the lowest id, NaN never wins over a number.
struct ArgmaxParams {
  int32_t num_rows = 0;
  int64_t width = 0;  // V
  DType dtype = DType::kFloat32;
  const void* logits = nullptr;  // [R, V]
  int64_t row_stride = 0;
  int32_t* out = nullptr;  // [R]
};

/// Sampling as an arg-max: keyed Gumbel noise is added to logits / temperature, after top-k and
/// top-p. Noise is a function of (seed, position, token) alone (core/noise.h).
struct SampleParams {
  int32_t num_rows = 0;
  int64_t width = 0;  // V
  DType dtype = DType::kFloat32;
  const void* logits = nullptr;  // [R, V]
  int64_t row_stride = 0;
  const uint64_t* seeds = nullptr;     // [R]
  const int32_t* positions = nullptr;  // [R], position of the token that is drawn
  float temperature = 1;
  float top_p = 1;         // 1: off
  int32_t top_k = 0;       // 0: off
  int32_t* out = nullptr;  // [R]
};

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
/// without a candidate, what hangs below them, and the places behind the last node become padding:
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
  int32_t* path = nullptr;              // [B, P], node indices from the root on, -1 behind the end
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

/// What a step emits: the tokens of the path behind the root, then the next root. Behind the first
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
  int32_t num_end_tokens = 0;           // E
  const int32_t* end_tokens = nullptr;  // [E]
  const int32_t* step = nullptr;        // [1], this step's number, at least 1
  StepEntries entries;
};

/// Typical acceptance (Medusa, section 3.3.1): child x of an accepted node is accepted when
/// p(x) > min(epsilon, delta * exp(-H)), p the tempered softmax at the parent; the longest accepted
/// path, ties by the sum of log p. The next root is drawn like `SampleParams` does.
struct AcceptTypicalParams {
  AcceptParams accept;  // targets unused
  int64_t width = 0;    // V
  DType dtype = DType::kFloat32;
  const void* logits = nullptr;      // [B, N, V]
  const uint64_t* seeds = nullptr;   // [B]
  const int32_t* lengths = nullptr;  // [B], position of the root: noise is keyed by position
  float temperature = 1;
  float top_p = 1;
  int32_t top_k = 0;
  float epsilon = 0.09f;
  float delta = 0.3f;
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

/// Moves the rows of the accepted path together, in place, by bytes:
/// row length + path[i] -> length + i in every cache; then length += count.
struct CompactParams {
  int32_t num_caches = 0;                // 2L: K and V of every layer
  void* const* caches = nullptr;         // [num_caches] of [B, G, S, row_bytes]
  int32_t num_sequences = 0;             // B
  int32_t num_kv_heads = 0;              // G
  int64_t row_bytes = 0;                 // D elements
  int64_t row_stride = 0;                // bytes
  int64_t head_stride = 0;               // bytes
  int64_t slot_stride = 0;               // bytes
  int32_t max_path = 0;                  // P
  const int32_t* cache_slots = nullptr;  // [B], or null: sequence b is slot b
  const int32_t* path = nullptr;         // [B, P], ascending node indices
  const int32_t* count = nullptr;        // [B], 0: nothing accepted
  int32_t* length = nullptr;             // [B], advanced by count
  bool advance = true;  // false: caches of another row size follow in the same step
};

}  // namespace medusa
