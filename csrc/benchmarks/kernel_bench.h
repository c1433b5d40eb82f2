// The parts of kernel_bench.
#pragma once

#include <cstring>

#include "benchmarks/benchmark_common.h"

namespace medusa::cpu {

/// tree_attention, rope_append, compact: what reads and writes the cache.
void register_cache_kernels(const ModelSizes& model);
/// embed, rms_norm, quantize: rows of activations.
void register_row_kernels(const ModelSizes& model);
/// argmax, sample, candidates, accept, accept_typical: from logits to the next step's tree.
void register_step_kernels(const ModelSizes& model);

/// Numbers between -1 and 1 that do not repeat soon.
inline float sample_value(int64_t i) {
  return static_cast<float>(i * 7919 % 10007) / 5003.5f - 1.0f;
}

/// A tree of N nodes in which node i > 0 is a child of (i - 1) / 2, after `length` cached rows.
struct TreeCase {
  TreeCase(int32_t num_nodes, int32_t length)
      : tokens(num_nodes),
        parents(num_nodes),
        sequences(num_nodes),
        positions(num_nodes),
        nodes(num_nodes),
        ancestors(num_nodes),
        first_rows{0, num_nodes},
        lengths{length} {
    for (int32_t i = 0; i < num_nodes; ++i) {
      tokens[i] = i;
      nodes[i] = i;
      parents[i] = i == 0 ? -1 : (i - 1) / 2;
      positions[i] = i == 0 ? length : positions[parents[i]] + 1;
      ancestors[i] = uint64_t{1} << i | (i == 0 ? 0 : ancestors[parents[i]]);
    }
    rows.num_rows = num_nodes;
    rows.num_sequences = 1;
    rows.mask_words = 1;
    rows.tokens = tokens.data();
    rows.sequences = sequences.data();
    rows.positions = positions.data();
    rows.nodes = nodes.data();
    rows.first_rows = first_rows.data();
    rows.cache_slots = slots.data();
    rows.lengths = lengths.data();
    rows.ancestors = ancestors.data();
  }
  TreeCase(const TreeCase&) = delete;
  TreeCase& operator=(const TreeCase&) = delete;

  std::vector<int32_t> tokens, parents, sequences, positions, nodes;
  std::vector<uint64_t> ancestors;  // N <= 64
  std::vector<int32_t> first_rows, lengths, slots = {0};
  RowTable rows;
};

}  // namespace medusa::cpu
