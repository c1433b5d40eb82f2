// Greedy or sampled acceptance: the walk from the root along the targets.
#include <algorithm>

#include "cpu/step/index_kernels.h"

namespace medusa::cpu {

void accept(Context&, const AcceptParams& p) {
  for (int32_t b = 0; b < p.num_sequences; ++b) {
    const int64_t first = p.first_rows ? p.first_rows[b] : int64_t{b} * p.max_nodes;
    const int32_t* tokens = p.tokens + first;
    const int32_t* targets = p.targets + first;
    const int32_t* parents = p.parents + first;
    const int32_t num_nodes = p.num_nodes ? p.num_nodes[b] : p.max_nodes;
    int32_t* path = p.path + int64_t{b} * p.max_path;

    int32_t last = 0, count = 0;
    if (num_nodes > 0) path[count++] = last;
    // Children come after their parent, so one pass forward meets the whole walk.
    for (int32_t node = 1; node < num_nodes && count < p.max_path; ++node) {
      if (parents[node] == last && tokens[node] == targets[last]) path[count++] = last = node;
    }
    std::fill(path + count, path + p.max_path, -1);
    p.count[b] = count;
    p.next_root[b] = num_nodes > 0 ? targets[last] : -1;
  }
}

}  // namespace medusa::cpu
