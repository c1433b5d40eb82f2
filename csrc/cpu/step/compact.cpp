// Moves the cache rows of the accepted path together, in place.
#include <algorithm>
#include <cstring>

#include "cpu/runtime/context.h"
#include "cpu/step/index_kernels.h"

namespace medusa::cpu {
namespace {

/// Node indices ascend and path[i] >= i, so a row is never overwritten before it is read.
void compact_cache(const CompactParams& p, char* cache) {
  for (int32_t b = 0; b < p.num_sequences; ++b) {
    const int64_t slot = p.cache_slots ? p.cache_slots[b] : b;
    const int32_t* path = p.path + int64_t{b} * p.max_path;
    for (int32_t g = 0; g < p.num_kv_heads; ++g) {
      const auto row = [&](int64_t node) {
        return cache + g * p.head_stride +
               p.page_table.row_offset(slot, p.length[b] + node, p.slot_stride, p.row_stride);
      };
      for (int32_t i = 0; i < p.count[b]; ++i) {
        if (path[i] == i) continue;
        std::memcpy(row(i), row(path[i]), static_cast<size_t>(p.row_bytes));
      }
    }
  }
}

}  // namespace

void compact(Context& base, const CompactParams& p) {
  // Below this many bytes per task, starting threads costs more than the moves.
  constexpr int64_t kTaskBytes = 64 << 10;
  int64_t num_rows = 0;
  for (int32_t b = 0; b < p.num_sequences; ++b) num_rows += p.count[b];
  const int64_t cache_bytes = num_rows * p.num_kv_heads * p.row_bytes;
  const int64_t grain = kTaskBytes / std::max<int64_t>(cache_bytes, 1) + 1;
  cpu_context(base).parallel_for(p.num_caches, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) compact_cache(p, static_cast<char*>(p.caches[i]));
  });
  if (!p.advance) return;
  for (int32_t b = 0; b < p.num_sequences; ++b) p.length[b] += p.count[b];
}

}  // namespace medusa::cpu
