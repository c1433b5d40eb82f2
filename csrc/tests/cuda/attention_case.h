// Inputs of tree attention and rope_append, and what attention should give, in float64.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/token_tree.h"
#include "tests/cuda/device.h"
#include "tests/paged_rows.h"

namespace medusa::cuda::testing {

enum class TreeKind { kRandom, kDeep, kChain };

struct AttentionShape {
  int num_nodes = 1;  // N of the first sequence; each further one has half as many, at least one
  int length = 0;     // of the first sequence; each further one has 37 more
  int num_sequences = 1;
  int group = 1;  // Q / G
  int num_kv_heads = 1;
  int head_size = 64;
  int window = 0;
  int num_padding_rows = 0;
  TreeKind tree = TreeKind::kRandom;
  DType dtype = DType::kBFloat16;
  DType q_dtype = DType::kBFloat16;
  unsigned seed = 1;
};

/// A tree's parents: random ones near the node, a deep one with a few side branches, a chain.
inline std::vector<int32_t> random_parents(TreeKind kind, int num_nodes, std::mt19937& random) {
  std::vector<int32_t> parents(static_cast<size_t>(num_nodes));
  for (int j = 0; j < num_nodes; ++j) {
    const int reach = kind == TreeKind::kChain ? 1 : kind == TreeKind::kDeep ? 2 : j;
    parents[j] = j == 0 ? -1 : j - 1 - static_cast<int>(random() % std::max(1, std::min(reach, j)));
  }
  return parents;
}

inline std::vector<float> random_floats(size_t size, std::mt19937& random, float scale = 1) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

struct AttentionCase {
  explicit AttentionCase(const AttentionShape& s) : shape(s), random(s.seed) {
    int mask_nodes = 1, last_length = s.length;
    for (int b = 0; b < s.num_sequences; ++b) {
      add_sequence(b);
      mask_nodes = std::max(mask_nodes, static_cast<int>(depths[b].size()));
      last_length = lengths[b];
    }
    num_rows = first_rows.back() + s.num_padding_rows;
    cache_rows = last_length + s.num_nodes + 3;
    fill_masks(mask_words_for(mask_nodes));
    for (int i = 0; i < s.num_padding_rows; ++i) {
      // Whatever a padding row holds must not be used.
      sequences.push_back(-1);
      positions.push_back(-1);
      nodes.push_back(-1);
    }
    const size_t heads = static_cast<size_t>(s.num_kv_heads) * s.num_sequences;
    k = cache_values(heads);
    v = cache_values(heads);
    q = rounded(
        s.dtype,
        random_floats(static_cast<size_t>(num_rows) * num_query_heads() * s.head_size, random));
  }

  int num_query_heads() const { return shape.group * shape.num_kv_heads; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape.head_size)); }
  /// [slot][head][row][column]
  size_t cache_index(int slot, int head, int row) const {
    return ((static_cast<size_t>(slot) * shape.num_kv_heads + head) * cache_rows + row) *
           shape.head_size;
  }

  AttentionShape shape;
  std::mt19937 random;
  int num_rows = 0, cache_rows = 0, mask_words = 1;
  std::vector<int32_t> sequences, positions, nodes, first_rows{0}, cache_slots, lengths;
  std::vector<std::vector<int32_t>> parents, depths;
  std::vector<uint64_t> ancestors;  // empty for chains
  std::vector<float> k, v, q;

 private:
  void add_sequence(int b) {
    const int num_nodes = b == 0 ? shape.num_nodes : std::max(1, shape.num_nodes / 2);
    parents.push_back(random_parents(shape.tree, num_nodes, random));
    depths.emplace_back(num_nodes);
    lengths.push_back(shape.length + 37 * b);
    cache_slots.push_back(shape.num_sequences - 1 - b);
    first_rows.push_back(first_rows.back() + num_nodes);
    for (int j = 0; j < num_nodes; ++j) {
      depths[b][j] = j == 0 ? 0 : depths[b][parents[b][j]] + 1;
      sequences.push_back(b);
      nodes.push_back(j);
      positions.push_back(lengths[b] + depths[b][j]);
    }
  }

  void fill_masks(int words) {
    mask_words = words;
    if (shape.tree == TreeKind::kChain) return;
    ancestors.assign(static_cast<size_t>(num_rows) * words, ~uint64_t{0});
    for (int b = 0; b < shape.num_sequences; ++b) {
      for (int j = 0; j < static_cast<int>(parents[b].size()); ++j) {
        uint64_t* mask = &ancestors[static_cast<size_t>(first_rows[b] + j) * words];
        for (int w = 0; w < words; ++w) mask[w] = 0;
        for (int i = j; i >= 0; i = parents[b][i]) mask[i / 64] |= uint64_t{1} << i % 64;
      }
    }
  }

  /// NaN where no row of the cache is valid.
  std::vector<float> cache_values(size_t heads) {
    std::vector<float> values =
        rounded(shape.dtype, random_floats(heads * cache_rows * shape.head_size, random));
    for (int b = 0; b < shape.num_sequences; ++b) {
      const int used = lengths[b] + static_cast<int>(parents[b].size());
      for (int head = 0; head < shape.num_kv_heads; ++head) {
        for (size_t i = cache_index(cache_slots[b], head, used);
             i < cache_index(cache_slots[b], head, cache_rows); ++i) {
          values[i] = std::numeric_limits<float>::quiet_NaN();
        }
      }
    }
    return values;
  }
};

/// K and V of a case on the device, in one run per slot or in shuffled pages.
class DeviceCache {
 public:
  DeviceCache(const AttentionCase& c, DType dtype, bool in_pages, const std::vector<float>& k,
              const std::vector<float>& v)
      : row_bytes_(c.shape.head_size * dtype_bytes(dtype)),
        num_heads_(c.shape.num_kv_heads),
        in_pages_(in_pages),
        paged_(c.shape.num_sequences, c.cache_rows),
        pages_(paged_.pages),
        k_(cut(encode(dtype, k))),
        v_(cut(encode(dtype, v))) {
    params.dtype = dtype;
    params.num_kv_heads = num_heads_;
    params.head_size = c.shape.head_size;
    params.num_rows = c.cache_rows;
    params.row_stride = c.shape.head_size;
    params.head_stride = params.row_stride * (in_pages ? kPageRows : c.cache_rows);
    params.slot_stride = params.head_stride * num_heads_;
    params.k = k_.data();
    params.v = v_.data();
    if (in_pages) params.page_table = paged_.table(pages_.data());
  }

  std::vector<float> k() const { return joined(k_); }
  std::vector<float> v() const { return joined(v_); }

  KvCache params;

 private:
  /// Bytes of 0xff, NaN in every type, where no row is.
  std::vector<unsigned char> cut(const std::vector<unsigned char>& plane) const {
    return in_pages_ ? paged_.cut(plane, num_heads_, row_bytes_, static_cast<unsigned char>(0xff))
                     : plane;
  }
  std::vector<float> joined(const DeviceVector<unsigned char>& plane) const {
    const std::vector<unsigned char> bytes = plane.host();
    return decode(params.dtype, in_pages_ ? paged_.joined(bytes, num_heads_, row_bytes_) : bytes);
  }

  int64_t row_bytes_;
  int32_t num_heads_;
  bool in_pages_;
  PagedRows paged_;
  DeviceVector<int32_t> pages_;
  DeviceVector<unsigned char> k_, v_;
};

struct AttentionReference {
  std::vector<double> out;        // [R, Q, D]
  std::vector<double> magnitude;  // [R, Q, D], sum of weight * |v|: what errors are relative to
};

inline AttentionReference reference_attention(const AttentionCase& c) {
  const AttentionShape& s = c.shape;
  const int d = s.head_size, num_heads = c.num_query_heads();
  AttentionReference reference;
  reference.out.resize(c.q.size());
  reference.magnitude.resize(c.q.size());
  for (int r = 0; r < c.first_rows.back(); ++r) {
    const int b = c.sequences[r], length = c.lengths[b];
    std::vector<int> keys;  // cache rows that are seen
    for (int key = 0; key < length; ++key) {
      if (s.window == 0 || key > c.positions[r] - s.window) keys.push_back(key);
    }
    std::vector<int> path;
    for (int j = c.nodes[r]; j >= 0; j = c.parents[b][j]) path.push_back(j);
    for (auto j = path.rbegin(); j != path.rend(); ++j) {
      const int position = length + c.depths[b][*j];
      if (s.window == 0 || position > c.positions[r] - s.window) keys.push_back(length + *j);
    }
    for (int h = 0; h < num_heads; ++h) {
      const float* q = &c.q[(static_cast<size_t>(r) * num_heads + h) * d];
      std::vector<double> weights;
      double max = -std::numeric_limits<double>::infinity(), sum = 0;
      for (const int key : keys) {
        const float* k = &c.k[c.cache_index(c.cache_slots[b], h / s.group, key)];
        double score = 0;
        for (int i = 0; i < d; ++i) score += static_cast<double>(q[i]) * k[i];
        weights.push_back(score * c.scale());
        max = std::max(max, weights.back());
      }
      for (double& weight : weights) sum += weight = std::exp(weight - max);
      for (size_t n = 0; n < keys.size(); ++n) {
        const float* v = &c.v[c.cache_index(c.cache_slots[b], h / s.group, keys[n])];
        for (int i = 0; i < d; ++i) {
          const size_t index = (static_cast<size_t>(r) * num_heads + h) * d + i;
          reference.out[index] += weights[n] / sum * v[i];
          reference.magnitude[index] += weights[n] / sum * std::abs(v[i]);
        }
      }
    }
  }
  return reference;
}

}  // namespace medusa::cuda::testing
