// Attention of tree rows and chains: grouped-query, no mask over the prefix, an exact function of
// each row's own keys.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Everything one call needs beside its parameters.
struct AttentionPlan {
  AttentionShape shape;
  int num_tiles;
  int64_t num_partials;
  bool by_splits;        // one task per split, else per tile
  AttentionTile* tiles;  // [num_tiles]
  float* partials;       // [num_partials] states
  float* rows;           // [R, Q * D], or null: outputs are written where they are made
  float* scratch;        // [threads]
  int64_t state_floats;
  int64_t scratch_floats;

  AttentionState partial(int64_t index) const {
    return {partials + index * state_floats, int64_t{shape.tile_rows} * shape.group};
  }
  AttentionScratch thread_scratch(int thread) const {
    return {scratch + thread * scratch_floats, shape};
  }
};

inline AttentionTile make_tile(const AttentionShape& shape, int sequence, int first_row) {
  const TreeAttentionParams& p = shape.params;
  AttentionTile tile;
  tile.sequence = sequence;
  tile.first_row = first_row;
  tile.num_rows = std::min(shape.tile_rows, p.rows.first_rows[sequence + 1] - first_row);
  tile.length = p.rows.lengths[sequence];
  const auto [first, last] = std::minmax_element(p.rows.positions + first_row,
                                                 p.rows.positions + first_row + tile.num_rows);
  tile.last_position = *last;
  tile.first_split = p.sliding_window > 0 ? std::max(*first + 1 - p.sliding_window, 0) / kSplit : 0;
  tile.num_splits = tile.last_position / kSplit + 1 - tile.first_split;
  tile.first_partial = 0;
  return tile;
}

inline AttentionShape make_shape(const TreeAttentionParams& p) {
  const int group = p.num_query_heads / p.cache.num_kv_heads;
  const int head_size = p.cache.head_size;
  const int padded = (head_size + Vec::kSize - 1) / Vec::kSize * Vec::kSize;
  int most_rows = 1, max_depth = 0;
  for (int b = 0; b < p.rows.num_sequences; ++b) {
    most_rows = std::max(most_rows, p.rows.first_rows[b + 1] - p.rows.first_rows[b]);
    for (int r = p.rows.first_rows[b]; r < p.rows.first_rows[b + 1]; ++r) {
      max_depth = std::max(max_depth, p.rows.positions[r] - p.rows.lengths[b] + 1);
    }
  }
  const int tile_rows = std::min(std::max(kTileVectors / group, 1), most_rows);
  const bool is_chain = p.rows.ancestors == nullptr;
  return {p,
          group,
          head_size,
          padded,
          tile_rows,
          is_chain ? 0 : p.rows.mask_words * kBlock,
          is_chain ? 0 : max_depth};
}

/// Counts the tiles and partial results of the plan's shape; returns the most splits of a tile.
inline int count_tiles(AttentionPlan& plan) {
  const TreeAttentionParams& p = plan.shape.params;
  plan.num_tiles = 0;
  plan.num_partials = 0;
  int most_splits = 0;
  for (int b = 0; b < p.rows.num_sequences; ++b) {
    for (int r = p.rows.first_rows[b]; r < p.rows.first_rows[b + 1]; r += plan.shape.tile_rows) {
      const AttentionTile tile = make_tile(plan.shape, b, r);
      ++plan.num_tiles;
      plan.num_partials += int64_t{tile.num_splits} * p.cache.num_kv_heads;
      most_splits = std::max(most_splits, tile.num_splits);
    }
  }
  return most_splits;
}

/// Tiles and KV heads, which threads share.
inline int64_t num_tasks(const AttentionPlan& plan) {
  return int64_t{plan.num_tiles} * plan.shape.params.cache.num_kv_heads;
}

/// Lays out tiles, partial results and every thread's scratch in the caller's scratch memory.
inline AttentionPlan make_plan(CpuContext& context, const TreeAttentionParams& p) {
  AttentionPlan plan{make_shape(p), 0, 0, false, nullptr, nullptr, nullptr, nullptr, 0, 0};
  const AttentionShape& shape = plan.shape;
  const int num_threads = context.num_threads();
  int most_splits = count_tiles(plan);
  // Few tasks that do not go evenly among the threads, an odd number of KV heads among two, are
  // cut in halves, though each half then loads the keys by itself.
  while (most_splits == 1 && num_tasks(plan) < 4 * num_threads &&
         num_tasks(plan) % num_threads != 0 && shape.tile_rows > 1 &&
         shape.tile_rows * shape.group > 2 * kMaxRows) {
    plan.shape.tile_rows = (shape.tile_rows + 1) / 2;
    most_splits = count_tiles(plan);
  }
  plan.by_splits = num_threads > 1 && most_splits > 1 && num_tasks(plan) < 4 * num_threads;
  if (!plan.by_splits) plan.num_partials = 0;
  const int64_t vectors = int64_t{shape.tile_rows} * shape.group;
  plan.state_floats = AttentionState::floats(vectors, shape.padded);
  plan.scratch_floats = AttentionScratch::floats(shape);
  // A group of quantised activations must not be written by two tasks.
  const bool splits_groups = p.out_activations.data &&
                             p.out_activations.format == kInt8Activations &&
                             shape.group * shape.head_size % kGroupSize != 0;
  const int64_t row_floats =
      splits_groups ? int64_t{p.rows.num_rows} * p.num_query_heads * shape.head_size : 0;

  constexpr int64_t kTileFloats = (sizeof(AttentionTile) + 3) / 4;
  const int64_t tile_floats = (plan.num_tiles * kTileFloats + 15) / 16 * 16;
  float* memory = context.scratch<float>(0, tile_floats + num_threads * plan.scratch_floats +
                                                plan.num_partials * plan.state_floats + row_floats);
  plan.tiles = reinterpret_cast<AttentionTile*>(memory);
  plan.scratch = memory + tile_floats;
  plan.partials = plan.scratch + num_threads * plan.scratch_floats;
  plan.rows = splits_groups ? plan.partials + plan.num_partials * plan.state_floats : nullptr;

  int64_t first_partial = 0;
  AttentionTile* tile = plan.tiles;
  for (int b = 0; b < p.rows.num_sequences; ++b) {
    for (int r = p.rows.first_rows[b]; r < p.rows.first_rows[b + 1]; r += shape.tile_rows) {
      *tile = make_tile(shape, b, r);
      tile->first_partial = first_partial;
      first_partial += int64_t{tile->num_splits} * p.cache.num_kv_heads;
      ++tile;
    }
  }
  return plan;
}

template <typename T>
void convert_row(const float* x, int width, T* out) {
  int i = 0;
  for (; i + Vec::kSize <= width; i += Vec::kSize) store(load(x + i), out + i);
  store_partial(load_partial(x + i, width - i), out + i, width - i);
}

inline void store_row(const AttentionPlan& plan, const float* x, int64_t row, int64_t first,
                      int width) {
  const TreeAttentionParams& p = plan.shape.params;
  const int64_t offset = row * p.num_query_heads * plan.shape.head_size + first;
  if (plan.rows) {
    std::copy(x, x + width, plan.rows + offset);
  } else if (p.out_activations.data) {
    write_activations(x, first, width, p.out_activations, row);
  } else if (p.q_dtype == DType::kBFloat16) {
    convert_row(x, width, static_cast<BFloat16*>(p.out) + offset);
  } else if (p.q_dtype == DType::kFloat16) {
    convert_row(x, width, static_cast<Float16*>(p.out) + offset);
  } else {
    std::copy(x, x + width, static_cast<float*>(p.out) + offset);
  }
}

/// Outputs of one tile and KV head; `buffer` holds one row's share.
inline void store_tile(const AttentionPlan& plan, const AttentionTile& tile, int kv_head,
                       const AttentionState& state, float* buffer) {
  const AttentionShape& shape = plan.shape;
  const int width = shape.group * shape.head_size;
  for (int r = 0; r < tile.num_rows; ++r) {
    for (int h = 0; h < shape.group; ++h) {
      const int m = r * shape.group + h;
      const Vec sum = broadcast(state.sum[m]);
      const float* out = state.out + int64_t{m} * shape.padded;
      for (int d = 0; d < shape.head_size; d += Vec::kSize) {
        store_partial(load(out + d) / sum, buffer + h * shape.head_size + d,
                      std::min(Vec::kSize, shape.head_size - d));
      }
    }
    store_row(plan, buffer, tile.first_row + r, int64_t{kv_head} * width, width);
  }
}

/// All splits of one tile and KV head, in order.
template <typename T>
void run_tile(const AttentionPlan& plan, int64_t task, int thread) {
  const int num_kv_heads = plan.shape.params.cache.num_kv_heads;
  const AttentionTile& tile = plan.tiles[task / num_kv_heads];
  const int kv_head = static_cast<int>(task % num_kv_heads);
  const AttentionScratch scratch = plan.thread_scratch(thread);
  const int vectors = tile.num_rows * plan.shape.group;
  AttentionState state(scratch.states, vectors);
  AttentionState next(scratch.states + plan.state_floats, vectors);
  TileAttention<T> attention(plan.shape, tile, kv_head, scratch);
  attention.attend(tile.first_split, state);
  for (int split = 1; split < tile.num_splits; ++split) {
    attention.attend(tile.first_split + split, next);
    merge(state, next, vectors, plan.shape.padded);
  }
  store_tile(plan, tile, kv_head, state, scratch.q);
}

/// One split of one tile and KV head.
template <typename T>
void run_split(const AttentionPlan& plan, int64_t task, int thread) {
  const AttentionTile* tile = plan.tiles + plan.num_tiles - 1;
  while (tile->first_partial > task) --tile;
  const int index = static_cast<int>(task - tile->first_partial);
  const AttentionScratch scratch = plan.thread_scratch(thread);
  AttentionState state = plan.partial(task);
  TileAttention<T>(plan.shape, *tile, index / tile->num_splits, scratch)
      .attend(tile->first_split + index % tile->num_splits, state);
}

inline void fold_splits(const AttentionPlan& plan, int64_t task, int thread) {
  const int num_kv_heads = plan.shape.params.cache.num_kv_heads;
  const AttentionTile& tile = plan.tiles[task / num_kv_heads];
  const int kv_head = static_cast<int>(task % num_kv_heads);
  const int64_t first = tile.first_partial + int64_t{kv_head} * tile.num_splits;
  AttentionState state = plan.partial(first);
  for (int split = 1; split < tile.num_splits; ++split) {
    merge(state, plan.partial(first + split), tile.num_rows * plan.shape.group, plan.shape.padded);
  }
  store_tile(plan, tile, kv_head, state, plan.thread_scratch(thread).q);
}

template <typename T>
void run_plan(CpuContext& context, const AttentionPlan& plan) {
  if (!plan.by_splits) {
    context.parallel_for(num_tasks(plan), 1, [&](int64_t task, int64_t, int thread) {
      run_tile<T>(plan, task, thread);
    });
    return;
  }
  context.parallel_for(plan.num_partials, 1, [&](int64_t task, int64_t, int thread) {
    run_split<T>(plan, task, thread);
  });
  context.parallel_for(num_tasks(plan), 1,
                       [&](int64_t task, int64_t, int thread) { fold_splits(plan, task, thread); });
}

inline void tree_attention(Context& base, const TreeAttentionParams& p) {
  CpuContext& context = cpu_context(base);
  const AttentionPlan plan = make_plan(context, p);
  switch (p.cache.dtype) {
    case DType::kBFloat16:
      run_plan<BFloat16>(context, plan);
      break;
    case DType::kFloat16:
      run_plan<Float16>(context, plan);
      break;
    case DType::kInt8:
      run_plan<int8_t>(context, plan);
      break;
    default:
      run_plan<float>(context, plan);
  }
  if (!plan.rows) return;
  const int64_t width = int64_t{p.num_query_heads} * p.cache.head_size;
  context.parallel_for(p.rows.num_rows, 1, [&](int64_t row, int64_t, int) {
    write_activations(plan.rows + row * width, 0, width, p.out_activations, row);
  });
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
