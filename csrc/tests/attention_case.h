// One call of tree_attention with its cache and queries, for tests.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/token_tree.h"
#include "cpu/linear/activations.h"
#include "tests/kernels_under_test.h"
#include "tests/paged_rows.h"

namespace medusa {

struct AttentionCase {
  std::vector<int32_t> lengths;               // [B]
  std::vector<std::vector<int32_t>> parents;  // [B][N]
  std::vector<int32_t> slots;                 // [B]; empty: sequence b is slot b
  bool as_chains = false;                     // leave the mask out
  bool in_pages = false;                      // read K and V from shuffled pages
  DType dtype = DType::kFloat32;
  int num_query_heads = 0;
  int num_kv_heads = 0;
  int head_size = 0;
  int sliding_window = 0;

  std::vector<float> queries;             // [R, Q, D]
  std::vector<char> k, v;                 // [slots, G, S, D] in dtype
  std::vector<float> k_scales, v_scales;  // [slots, G, S]
  int64_t rows_of_cache = 0;              // S
  int num_slots = 0;

  double scale() const { return 1 / std::sqrt(static_cast<double>(head_size)); }
  int64_t num_rows() const { return rows_of_cache; }

  /// Random queries and caches: S just holds the longest sequence and its tree.
  void fill(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    int64_t rows = 0;
    for (size_t b = 0; b < parents.size(); ++b) {
      rows += static_cast<int64_t>(parents[b].size());
      rows_of_cache = std::max<int64_t>(rows_of_cache, lengths[b] + parents[b].size());
    }
    rows_of_cache += 3;
    num_slots = static_cast<int>(parents.size());
    queries.resize(rows * num_query_heads * head_size);
    for (float& x : queries) x = normal(random);
    const int64_t values = int64_t{num_slots} * num_kv_heads * rows_of_cache * head_size;
    k.resize(values * dtype_bytes(dtype));
    v.resize(values * dtype_bytes(dtype));
    k_scales.resize(values / head_size);
    v_scales.resize(values / head_size);
    for (int64_t i = 0; i < values; ++i) put(k, i, normal(random));
    for (int64_t i = 0; i < values; ++i) put(v, i, normal(random));
    for (float& x : k_scales) x = 0.02f + 0.001f * normal(random);
    for (float& x : v_scales) x = 0.02f + 0.001f * normal(random);
  }

  const float* query(int b, int node, int head) const {
    int64_t row = node;
    for (int i = 0; i < b; ++i) row += static_cast<int64_t>(parents[i].size());
    return queries.data() + (row * num_query_heads + head) * head_size;
  }

  double k_at(int b, int g, int64_t row, int d) const { return get(k, k_scales, b, g, row, d); }
  double v_at(int b, int g, int64_t row, int d) const { return get(v, v_scales, b, g, row, d); }

  /// Overwrites one row of K and V in every slot and head.
  void set_row(int64_t row, float value) {
    for (int64_t head = 0; head < int64_t{num_slots} * num_kv_heads; ++head) {
      for (int d = 0; d < head_size; ++d) {
        put(k, (head * rows_of_cache + row) * head_size + d, value);
        put(v, (head * rows_of_cache + row) * head_size + d, value);
      }
    }
  }

  /// Row length + path[i] becomes row length + i, as if the path had been decoded plainly.
  void move_path_together(const std::vector<int32_t>& path) {
    const int64_t bytes = head_size * dtype_bytes(dtype);
    for (int64_t head = 0; head < int64_t{num_slots} * num_kv_heads; ++head) {
      for (size_t i = 0; i < path.size(); ++i) {
        const int64_t from = head * rows_of_cache + lengths[0] + path[i];
        const int64_t to = head * rows_of_cache + lengths[0] + static_cast<int64_t>(i);
        std::memmove(k.data() + to * bytes, k.data() + from * bytes, bytes);
        std::memmove(v.data() + to * bytes, v.data() + from * bytes, bytes);
        k_scales[to] = k_scales[from];
        v_scales[to] = v_scales[from];
      }
    }
  }

  std::vector<float> run(int num_threads) const {
    std::vector<float> out(queries.size(), std::nanf(""));
    TreeAttentionParams p;
    p.q = queries.data();
    p.out = out.data();
    call(p, num_threads);
    return out;
  }

  /// Queries and outputs of a 16-bit type, as float32.
  std::vector<float> run_as(DType q_dtype) const {
    std::vector<BFloat16> q(queries.size()), out(queries.size());
    for (size_t i = 0; i < q.size(); ++i) q[i] = from_float<BFloat16>(queries[i]);
    TreeAttentionParams p;
    p.q_dtype = q_dtype;
    p.q = q.data();
    p.out = out.data();
    call(p, 2);
    std::vector<float> floats;
    for (BFloat16 x : out) floats.push_back(to_float(x));
    return floats;
  }

  /// Outputs as int8 activations, dequantised.
  std::vector<float> run_quantized() const {
    const int width = num_query_heads * head_size;
    const int rows = static_cast<int>(queries.size()) / width;
    std::vector<char> buffer(cpu::activation_buffer_bytes(cpu::kInt8Activations, rows, width) + 64);
    TreeAttentionParams p;
    p.q = queries.data();
    p.out_activations.format = cpu::kInt8Activations;
    p.out_activations.width = width;
    p.out_activations.data =
        reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(buffer.data()) + 63) / 64 * 64);
    call(p, 2);
    std::vector<float> floats;
    for (int r = 0; r < rows; ++r) {
      const cpu::Int8Row row = cpu::int8_row(p.out_activations, r);
      for (int i = 0; i < width; ++i) {
        floats.push_back(row.values[i] * row.scales[i / kGroupSize]);
      }
    }
    return floats;
  }

 private:
  void put(std::vector<char>& cache, int64_t i, float x) const {
    if (dtype == DType::kFloat32) {
      reinterpret_cast<float*>(cache.data())[i] = x;
    } else if (dtype == DType::kBFloat16) {
      reinterpret_cast<BFloat16*>(cache.data())[i] = from_float<BFloat16>(x);
    } else if (dtype == DType::kFloat16) {
      reinterpret_cast<Float16*>(cache.data())[i] = from_float<Float16>(x);
    } else {
      reinterpret_cast<int8_t*>(cache.data())[i] = static_cast<int8_t>(x * 40);
    }
  }

  double get(const std::vector<char>& cache, const std::vector<float>& scales, int b, int g,
             int64_t row, int d) const {
    const int64_t slot = slots.empty() ? b : slots[b];
    const int64_t line = (slot * num_kv_heads + g) * rows_of_cache + row;
    const int64_t i = line * head_size + d;
    if (dtype == DType::kFloat32) return reinterpret_cast<const float*>(cache.data())[i];
    if (dtype == DType::kBFloat16) {
      return to_float(reinterpret_cast<const BFloat16*>(cache.data())[i]);
    }
    if (dtype == DType::kFloat16) {
      return to_float(reinterpret_cast<const Float16*>(cache.data())[i]);
    }
    return reinterpret_cast<const int8_t*>(cache.data())[i] * static_cast<double>(scales[line]);
  }

  /// NaN where no row is, and in int8, which has none, the largest value.
  std::vector<char> cut(const PagedRows& paged, const std::vector<char>& plane) const {
    const char unused = dtype == DType::kInt8 ? '\x7f' : '\xff';
    return paged.cut(plane, num_kv_heads, head_size * dtype_bytes(dtype), unused);
  }

  void call(TreeAttentionParams& p, int num_threads) const {
    std::vector<int32_t> sequences, positions, nodes, first_rows = {0}, cache_slots = slots;
    std::vector<uint64_t> ancestors;
    size_t most = 0;
    for (const auto& tree : parents) most = std::max(most, tree.size());
    const int32_t words = mask_words_for(static_cast<int32_t>(most));
    for (size_t b = 0; b < parents.size(); ++b) {
      const auto n = static_cast<int32_t>(parents[b].size());
      std::vector<int32_t> depths(n);
      ancestors.resize(ancestors.size() + n * words);
      fill_ancestors(parents[b].data(), n, words, depths.data(),
                     ancestors.data() + ancestors.size() - n * words);
      for (int32_t node = 0; node < n; ++node) {
        sequences.push_back(static_cast<int32_t>(b));
        positions.push_back(lengths[b] + depths[node]);
        nodes.push_back(node);
      }
      first_rows.push_back(first_rows.back() + n);
      if (slots.empty()) cache_slots.push_back(static_cast<int32_t>(b));
    }
    p.rows.num_rows = first_rows.back();
    p.rows.num_sequences = static_cast<int32_t>(parents.size());
    p.rows.mask_words = words;
    p.rows.sequences = sequences.data();
    p.rows.positions = positions.data();
    p.rows.nodes = nodes.data();
    p.rows.first_rows = first_rows.data();
    p.rows.cache_slots = cache_slots.data();
    p.rows.lengths = lengths.data();
    p.rows.ancestors = as_chains ? nullptr : ancestors.data();
    const PagedRows paged(num_slots, rows_of_cache);
    const std::vector<std::vector<char>> planes = {in_pages ? cut(paged, k) : k,
                                                   in_pages ? cut(paged, v) : v};
    const std::vector<std::vector<float>> scales = {
        in_pages ? paged.cut(k_scales, num_kv_heads, 1, std::nanf("")) : k_scales,
        in_pages ? paged.cut(v_scales, num_kv_heads, 1, std::nanf("")) : v_scales};
    const int64_t rows_of_run = in_pages ? kPageRows : rows_of_cache;
    p.cache.dtype = dtype;
    p.cache.num_kv_heads = num_kv_heads;
    p.cache.head_size = head_size;
    p.cache.num_rows = static_cast<int32_t>(rows_of_cache);
    p.cache.row_stride = head_size;
    p.cache.head_stride = rows_of_run * head_size;
    p.cache.slot_stride = p.cache.head_stride * num_kv_heads;
    p.cache.k = const_cast<char*>(planes[0].data());
    p.cache.v = const_cast<char*>(planes[1].data());
    p.cache.k_scales = const_cast<float*>(scales[0].data());
    p.cache.v_scales = const_cast<float*>(scales[1].data());
    p.cache.scale_head_stride = rows_of_run;
    p.cache.scale_slot_stride = rows_of_run * num_kv_heads;
    if (in_pages) p.cache.page_table = paged.table(paged.pages.data());
    p.num_query_heads = num_query_heads;
    p.sliding_window = sliding_window;
    p.scale = static_cast<float>(scale());
    p.q_row_stride = int64_t{num_query_heads} * head_size;
    cpu::CpuContext context(num_threads);
    kernels_under_test().tree_attention(context, p);
  }
};

}  // namespace medusa
