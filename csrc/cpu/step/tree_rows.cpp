// The rows of B padded trees, from their parents.
#include "core/token_tree.h"
#include "cpu/step/index_kernels.h"

namespace medusa::cpu {

void tree_rows(Context&, const TreeRowsParams& p) {
  for (int32_t b = 0; b < p.num_sequences; ++b) {
    const int64_t first = int64_t{b} * p.num_nodes;
    p.first_rows[b] = static_cast<int32_t>(first);
    if (p.cache_slots) p.cache_slots[b] = b;
    fill_ancestors(p.parents + first, p.num_nodes, p.mask_words, p.positions + first,
                   p.ancestors + first * p.mask_words);
    for (int32_t node = 0; node < p.num_nodes; ++node) {
      p.sequences[first + node] = b;
      p.positions[first + node] += p.lengths[b];
      p.nodes[first + node] = node;
    }
  }
  p.first_rows[p.num_sequences] = p.num_sequences * p.num_nodes;
}

}  // namespace medusa::cpu
