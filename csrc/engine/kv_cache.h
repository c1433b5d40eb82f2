// The memory that holds the sequences' keys and values.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/params/cache.h"
#include "model/model.h"

namespace medusa {

/// K and V of all layers for B sequences of S rows, [L, 2, B, G, S, D] in one allocation.
class KvCacheStorage {
 public:
  KvCacheStorage() = default;
  KvCacheStorage(const Model& model, DType dtype, int32_t num_slots, int32_t num_rows);

  const std::vector<KvCache>& layers() const { return layers_; }  // [L]
  int32_t num_rows() const { return num_rows_; }

  /// Compaction of every layer's K and V, for the caller to add lengths and paths; the second one
  /// moves an int8 cache's scales and has num_caches = 0 for other types.
  CompactParams compact_rows() const;
  CompactParams compact_scales() const;

 private:
  int32_t num_rows_ = 0;
  Storage storage_;
  Storage scales_;
  std::vector<KvCache> layers_;
  DeviceArray<void*> caches_;        // [2L]
  DeviceArray<void*> scale_caches_;  // [2L] or empty
};

}  // namespace medusa
