// A step's results where the session reads them.
#include <algorithm>

#include "cpu/step/index_kernels.h"

namespace medusa::cpu {

void publish(Context&, const PublishParams& p) {
  const StepEntries& entries = p.entries;
  const int64_t entry = *p.step % entries.capacity;
  for (int32_t b = 0; b < p.num_sequences; ++b) {
    const int32_t* tokens = p.tokens + p.first_rows[b];
    const int32_t* path = p.path + int64_t{b} * p.max_path;
    const int32_t* end_tokens = p.end_tokens + int64_t{p.slots[b]} * p.num_end_tokens;
    const int32_t* last_end_token = end_tokens + p.num_end_tokens;
    const int64_t row = entry * entries.num_sequences + b;
    int32_t* emitted = entries.tokens + row * entries.max_path;
    int32_t count = 0;
    bool has_ended = false;
    for (; count < p.count[b] && !has_ended; ++count) {
      const int32_t token = count + 1 < p.count[b] ? tokens[path[count + 1]] : p.next_root[b];
      emitted[count] = token;
      has_ended = std::find(end_tokens, last_end_token, token) != last_end_token;
    }
    std::copy_n(path, count, entries.paths + row * entries.max_path);
    if (has_ended) p.next_root[b] = emitted[count - 1];
    p.count[b] = entries.counts[row] = count;
  }
  entries.steps[entry] = *p.step;
}

}  // namespace medusa::cpu
