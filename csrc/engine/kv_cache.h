// The memory that holds the sequences' keys and values, in pages.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/params/cache.h"
#include "model/model.h"

namespace medusa {

/// K and V of all layers: a page holds kPageRows rows of every layer, [L, 2, G, kPageRows, D] with
/// a gap after each head and, of int8, their scales [L, 2, G, kPageRows] after them. The pages are
/// one allocation, of which a CPU's memory is taken page by page, as rows are written.
class KvCacheStorage {
 public:
  KvCacheStorage() = default;
  /// For `num_slots` sequences of at most `num_rows` rows each.
  KvCacheStorage(const Model& model, DType dtype, int32_t num_slots, int32_t num_rows,
                 int32_t num_pages);

  static int64_t page_bytes(const ModelConfig& config, DType dtype);
  static int32_t pages_for(int32_t num_rows) { return (num_rows + kPageRows - 1) / kPageRows; }

  const std::vector<KvCache>& layers() const { return layers_; }  // [L]
  int32_t num_rows() const { return layers_.front().num_rows; }

  /// From now on page `page` holds the rows of `slot` from index * kPageRows on.
  void set_page(Context& context, int32_t slot, int32_t index, int32_t page) const;
  /// Copies the first `count` rows of a page.
  void copy_rows(Context& context, int32_t from, int32_t to, int32_t count) const;

  /// Compaction of every layer's K and V, for the caller to add lengths and paths; the second one
  /// moves an int8 cache's scales and has num_caches = 0 for other types.
  CompactParams compact_rows() const;
  CompactParams compact_scales() const;

 private:
  Backend backend_;
  Storage storage_;
  std::vector<KvCache> layers_;
  DeviceArray<int32_t> page_table_;  // [slots, pages per slot]
  DeviceArray<void*> caches_;        // [2L]
  DeviceArray<void*> scale_caches_;  // [2L] or empty
  // A copy is a compaction of a slot whose two pages are `to` and `from`.
  DeviceArray<int32_t> copied_pages_;  // [2]
  DeviceArray<int32_t> copied_path_;   // [kPageRows], the rows of the second page
  DeviceArray<int32_t> copied_count_;  // [1]
  DeviceArray<int32_t> no_length_;     // [1], 0
};

}  // namespace medusa
