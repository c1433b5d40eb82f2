// The rows of one tile against one KV head: which keys they see, block by block.
//
// Positions are cut into blocks of kBlock and splits of kSplit by absolute multiples. A split's
// partial result (maximum, sum, output) is made from its blocks in order, and partial results are
// folded in order, whether one thread makes them all or many make one each.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kSplit = 256;        // positions per split
constexpr int kTileVectors = 128;  // query vectors that share one pass over K and V

static_assert(kPageRows % kSplit == 0 && kSplit % kBlock == 0, "a page is made of whole splits");

/// Consecutive rows of one sequence, and the splits they see.
struct AttentionTile {
  int32_t sequence;
  int32_t first_row;
  int32_t num_rows;
  int32_t length;         // valid rows of the sequence in the cache
  int32_t last_position;  // the largest of the rows
  int32_t first_split;
  int32_t num_splits;
  int64_t first_partial;  // index of its first (KV head, split)
};

struct AttentionShape {
  const TreeAttentionParams& params;
  int group;      // query heads per KV head
  int head_size;  // D
  int padded;     // D rounded up to whole vectors
  int tile_rows;  // rows of the largest tile
  int max_nodes;  // of one sequence, rounded up to whole blocks; 0 for chains
  int max_depth;  // nodes on the longest path after `length`; 0 for chains
};

/// The running softmax of a tile's query vectors: maximum, sum of weights, and output.
struct AttentionState {
  float* maximum;  // [M]
  float* sum;      // [M]
  float* out;      // [M, padded]

  static int64_t floats(int64_t vectors, int padded) { return vectors * (padded + 2); }

  AttentionState(float* memory, int64_t vectors)
      : maximum(memory), sum(memory + vectors), out(memory + 2 * vectors) {}

  void reset(int vectors, int padded) {
    std::fill(maximum, maximum + vectors, -std::numeric_limits<float>::infinity());
    std::fill(sum, sum + vectors, 0.0f);
    std::fill(out, out + int64_t{vectors} * padded, 0.0f);
  }
};

/// Folds `next`, the positions after those of `state`, into it. Vectors that saw no key have
/// sum 0 and change nothing.
inline void merge(AttentionState& state, const AttentionState& next, int vectors, int padded) {
  for (int m = 0; m < vectors; ++m) {
    if (next.sum[m] == 0) continue;
    float* out = state.out + int64_t{m} * padded;
    const float* more = next.out + int64_t{m} * padded;
    if (state.sum[m] == 0) {
      state.maximum[m] = next.maximum[m];
      state.sum[m] = next.sum[m];
      std::copy(more, more + padded, out);
      continue;
    }
    const float maximum = std::max(state.maximum[m], next.maximum[m]);
    const Vec scale = exp2_of(broadcast(state.maximum[m] - maximum));
    const Vec next_scale = exp2_of(broadcast(next.maximum[m] - maximum));
    state.maximum[m] = maximum;
    state.sum[m] = state.sum[m] * reduce_max(scale) + next.sum[m] * reduce_max(next_scale);
    for (int d = 0; d < padded; d += Vec::kSize) {
      store(fma(load(more + d), next_scale, load(out + d) * scale), out + d);
    }
  }
}

/// A thread's working memory for one tile.
struct AttentionScratch {
  float* q;            // [M, D], scaled
  float* weights;      // [M, kBlock]
  float* keys;         // [D, kBlock]
  float* values;       // [kBlock, padded]
  float* scales;       // [M]
  float* tail_scores;  // [M, max_nodes]
  float* states;       // two AttentionState
  int* begins;         // [M]
  int* prefix_ends;    // [M], end of the keys all rows share
  int* ends;           // [M]
  int32_t* paths;      // [rows, max_depth], ancestors by depth

  static int64_t floats(const AttentionShape& s) {
    const int64_t vectors = int64_t{s.tile_rows} * s.group;
    const int64_t total = vectors * (s.head_size + kBlock + s.max_nodes + 4) +
                          int64_t{kBlock} * (s.head_size + s.padded) +
                          2 * AttentionState::floats(vectors, s.padded) +
                          int64_t{s.tile_rows} * s.max_depth + 11 * 16;
    return (total + 15) / 16 * 16;
  }

  AttentionScratch(float* memory, const AttentionShape& s) {
    const int64_t vectors = int64_t{s.tile_rows} * s.group;
    const auto take = [&memory](int64_t count) {
      float* start = memory;
      memory += (count + 15) / 16 * 16;
      return start;
    };
    keys = take(int64_t{kBlock} * s.head_size);
    values = take(int64_t{kBlock} * s.padded);
    weights = take(vectors * kBlock);
    q = take(vectors * s.head_size);
    scales = take(vectors);
    tail_scores = take(vectors * s.max_nodes);
    states = take(2 * AttentionState::floats(vectors, s.padded));
    begins = reinterpret_cast<int*>(take(vectors));
    prefix_ends = reinterpret_cast<int*>(take(vectors));
    ends = reinterpret_cast<int*>(take(vectors));
    paths = reinterpret_cast<int32_t*>(take(int64_t{s.tile_rows} * s.max_depth));
  }
};

template <typename Q>
void load_queries(const AttentionShape& shape, const AttentionTile& tile, int kv_head, float* out) {
  const TreeAttentionParams& p = shape.params;
  const Vec scale = broadcast(p.scale * 1.44269504f);  // scores in powers of two
  const int width = shape.group * shape.head_size;
  for (int r = 0; r < tile.num_rows; ++r) {
    const Q* q = static_cast<const Q*>(p.q) + (tile.first_row + r) * p.q_row_stride +
                 int64_t{kv_head} * width;
    float* to = out + int64_t{r} * width;
    int i = 0;
    for (; i + Vec::kSize <= width; i += Vec::kSize) store(load(q + i) * scale, to + i);
    store_partial(load_partial(q + i, width - i) * scale, to + i, width - i);
  }
}

inline void load_queries(const AttentionShape& shape, const AttentionTile& tile, int kv_head,
                         float* out) {
  switch (shape.params.q_dtype) {
    case DType::kBFloat16:
      return load_queries<BFloat16>(shape, tile, kv_head, out);
    case DType::kFloat16:
      return load_queries<Float16>(shape, tile, kv_head, out);
    default:
      return load_queries<float>(shape, tile, kv_head, out);
  }
}

/// The rows of one tile against one KV head.
template <typename T>
class TileAttention {
 public:
  TileAttention(const AttentionShape& shape, const AttentionTile& tile, int kv_head,
                const AttentionScratch& scratch)
      : shape_(shape),
        tile_(tile),
        scratch_(scratch),
        num_vectors_(tile.num_rows * shape.group),
        is_chain_(shape.params.rows.ancestors == nullptr),
        next_head_start_(kv_head + 1 < shape.params.cache.num_kv_heads
                             ? int64_t{tile.first_split} * kSplit
                             : -1) {
    const KvCache& cache = shape.params.cache;
    const int64_t slot = shape.params.rows.cache_slots[tile.sequence];
    const int64_t head = kv_head * cache.head_stride, scales = kv_head * cache.scale_head_stride;
    keys_ = {&cache, static_cast<const T*>(cache.k) + head,
             cache.k_scales ? cache.k_scales + scales : nullptr, slot};
    values_ = {&cache, static_cast<const T*>(cache.v) + head,
               cache.v_scales ? cache.v_scales + scales : nullptr, slot};
    load_queries(shape, tile, kv_head, scratch.q);
  }

  /// The partial result of one split.
  void attend(int split, AttentionState& state) {
    state.reset(num_vectors_, shape_.padded);
    const int64_t end = std::min<int64_t>(int64_t{split + 1} * kSplit, tile_.last_position + 1);
    if (!is_chain_ && end > tile_.length && !has_tail_) score_tail();
    for (int64_t start = int64_t{split} * kSplit; start < end; start += kBlock) {
      if (set_ranges(start)) attend_block(start, state);
    }
  }

 private:
  /// The keys in [start, start + kBlock) that each vector sees; false when there are none.
  bool set_ranges(int64_t start) {
    const TreeAttentionParams& p = shape_.params;
    const int64_t prefix_end = is_chain_ ? int64_t{tile_.last_position} + 1 : tile_.length;
    const auto clamp = [start](int64_t position) {
      return static_cast<int>(std::clamp<int64_t>(position - start, 0, kBlock));
    };
    bool any = false;
    is_uniform_ = true;
    for (int r = 0; r < tile_.num_rows; ++r) {
      const int64_t position = p.rows.positions[tile_.first_row + r];
      const int end = clamp(position + 1);
      const int begin =
          p.sliding_window > 0 ? std::min(clamp(position + 1 - p.sliding_window), end) : 0;
      const int shared_end = std::clamp(clamp(prefix_end), begin, end);
      for (int m = r * shape_.group; m < (r + 1) * shape_.group; ++m) {
        scratch_.begins[m] = begin;
        scratch_.prefix_ends[m] = shared_end;
        scratch_.ends[m] = end;
      }
      any = any || begin < end;
      is_uniform_ =
          is_uniform_ && begin == scratch_.begins[0] && shared_end == scratch_.prefix_ends[0];
    }
    return any;
  }

  void attend_block(int64_t start, AttentionState& state) {
    const AttentionScratch& s = scratch_;
    const int head_size = shape_.head_size;
    const int count = *std::max_element(s.prefix_ends, s.prefix_ends + num_vectors_);
    const bool in_place = num_vectors_ <= kMaxRows;
    const int64_t end = int64_t{tile_.last_position} + 1;
    const BlockRows<T> keys = keys_.block(start, end, next_head_start_);
    const BlockRows<T> values = values_.block(start, end, next_head_start_);
    if (count > 0 && in_place) {
      scores_in_place(s.q, num_vectors_, head_size, keys, count, s.weights);
    } else if (count > 0) {
      load_keys(keys, count, head_size, s.keys);
      scores(s.q, num_vectors_, head_size, s.keys, count, s.weights, kBlock);
    }
    const bool has_tail = !is_chain_ && start + kBlock > tile_.length;
    if (has_tail) place_tail_scores(start);
    softmax_block(s.weights, num_vectors_, s.begins, s.ends, state.maximum, state.sum, s.scales);
    if (in_place && head_size == shape_.padded) {
      add_block_values(CachedValues<T, true>{values, head_size}, state);
    } else if (in_place) {
      add_block_values(CachedValues<T, false>{values, head_size}, state);
    } else {
      add_block_values(stored_values(values, count), state);
    }
    if (has_tail) add_tail_values(start, state);
  }

  /// The first `count` V rows of a block where many query vectors can read them.
  StoredValues stored_values(const BlockRows<T>& values, int count) {
    if constexpr (std::is_same_v<T, float>) {
      if (shape_.head_size == shape_.padded) {
        prefetch_next(values, count, shape_.head_size);
        return {values.rows, values.stride};
      }
    }
    load_values(values, count, shape_.head_size, shape_.padded, scratch_.values);
    return {scratch_.values, shape_.padded};
  }

  template <typename Values>
  void add_block_values(const Values& values, AttentionState& state) {
    const AttentionScratch& s = scratch_;
    const int padded = shape_.padded;
    for (int m = 0; m < num_vectors_; m += kMaxRows) {
      const int rows = std::min(num_vectors_ - m, kMaxRows);
      float* out = state.out + int64_t{m} * padded;
      if (is_uniform_) {
        add_values(s.weights + m * kBlock, rows, values, s.begins[m], s.prefix_ends[m],
                   s.scales + m, out, padded);
      } else {
        add_values_ragged(s.weights + m * kBlock, rows, values, s.begins + m, s.prefix_ends + m,
                          s.scales + m, out, padded);
      }
    }
  }

  // ---- The tail: the tree's own nodes, in cache rows length + node, at positions length + depth.

  const uint64_t* mask(int row) const {
    return shape_.params.rows.ancestors +
           int64_t{tile_.first_row + row} * shape_.params.rows.mask_words;
  }

  /// Lists each row's ancestors and scores all nodes that some row of the tile sees. Nodes are
  /// scored by blocks of one mask word.
  void score_tail() {
    has_tail_ = true;
    const RowTable& rows = shape_.params.rows;
    const int num_nodes = rows.first_rows[tile_.sequence + 1] - rows.first_rows[tile_.sequence];
    for (int r = 0; r < tile_.num_rows; ++r) {
      int32_t* path = scratch_.paths + int64_t{r} * shape_.max_depth;
      for (int word = 0; word < rows.mask_words; ++word) {
        // Parents come before their children, so ascending nodes are ascending depths.
        for (uint64_t bits = mask(r)[word]; bits != 0; bits &= bits - 1) {
          *path++ = word * 64 + __builtin_ctzll(bits);
        }
      }
    }
    for (int word = 0; word * kBlock < num_nodes; ++word) {
      uint64_t seen = 0;
      for (int r = 0; r < tile_.num_rows; ++r) seen |= mask(r)[word];
      if (seen == 0) continue;
      const int count = 64 - __builtin_clzll(seen);
      load_keys(keys_.from_row(tile_.length + word * kBlock), count, shape_.head_size,
                scratch_.keys);
      scores(scratch_.q, num_vectors_, shape_.head_size, scratch_.keys, count,
             scratch_.tail_scores + word * kBlock, shape_.max_nodes);
    }
  }

  void place_tail_scores(int64_t start) {
    for (int m = 0; m < num_vectors_; ++m) {
      const int32_t* path = scratch_.paths + int64_t{m / shape_.group} * shape_.max_depth;
      const float* from = scratch_.tail_scores + int64_t{m} * shape_.max_nodes;
      for (int lane = scratch_.prefix_ends[m]; lane < scratch_.ends[m]; ++lane) {
        scratch_.weights[m * kBlock + lane] = from[path[start + lane - tile_.length]];
      }
    }
  }

  void add_tail_values(int64_t start, AttentionState& state) {
    for (int m = 0; m < num_vectors_; ++m) {
      const int32_t* path = scratch_.paths + int64_t{m / shape_.group} * shape_.max_depth;
      float* out = state.out + int64_t{m} * shape_.padded;
      for (int lane = scratch_.prefix_ends[m]; lane < scratch_.ends[m]; ++lane) {
        const Vec weight = broadcast(scratch_.weights[m * kBlock + lane]);
        const int64_t row = tile_.length + path[start + lane - tile_.length];
        for (int d = 0; d < shape_.padded; d += Vec::kSize) {
          store(fma(weight, load_value(values_, row, d, shape_.head_size), load(out + d)), out + d);
        }
      }
    }
  }

  const AttentionShape& shape_;
  const AttentionTile& tile_;
  const AttentionScratch& scratch_;
  const int num_vectors_;
  const bool is_chain_;
  const int64_t next_head_start_;
  bool has_tail_ = false;
  bool is_uniform_ = true;
  HeadRows<T> keys_;
  HeadRows<T> values_;
};

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
