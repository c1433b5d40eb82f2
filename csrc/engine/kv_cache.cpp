#include "engine/kv_cache.h"

#include <memory>

namespace medusa {
namespace {

/// Copies host pointers into the backend's memory, for kernels that take tables of pointers.
DeviceArray<void*> upload(const Backend& backend, const std::vector<void*>& pointers) {
  DeviceArray<void*> array(backend, static_cast<int64_t>(pointers.size()));
  const std::unique_ptr<Context> context = backend.make_context();
  backend.copy_in(*context, array.data(), pointers.data(),
                  static_cast<int64_t>(pointers.size() * sizeof(void*)));
  backend.synchronize(*context);
  return array;
}

}  // namespace

KvCacheStorage::KvCacheStorage(const Model& model, DType dtype, int32_t num_slots, int32_t num_rows)
    : num_rows_(num_rows) {
  const ModelConfig& config = model.config();
  const Backend& backend = model.backend();
  const int64_t head_rows = int64_t{num_slots} * config.num_kv_heads * num_rows;
  const int64_t plane_bytes = head_rows * config.head_size * dtype_bytes(dtype);
  storage_ = backend.allocate(plane_bytes * 2 * config.num_layers());
  if (dtype == DType::kInt8) scales_ = backend.allocate(head_rows * 4 * 2 * config.num_layers());
  std::vector<void*> pointers;
  std::vector<void*> scale_pointers;
  for (int32_t i = 0; i < config.num_layers(); ++i) {
    KvCache cache;
    cache.dtype = dtype;
    cache.num_kv_heads = config.num_kv_heads;
    cache.head_size = config.head_size;
    cache.num_rows = num_rows;
    cache.row_stride = config.head_size;
    cache.head_stride = int64_t{num_rows} * config.head_size;
    cache.slot_stride = cache.head_stride * config.num_kv_heads;
    cache.k = static_cast<uint8_t*>(storage_.get()) + 2 * i * plane_bytes;
    cache.v = static_cast<uint8_t*>(cache.k) + plane_bytes;
    pointers.insert(pointers.end(), {cache.k, cache.v});
    if (scales_) {
      cache.k_scales = static_cast<float*>(scales_.get()) + 2 * i * head_rows;
      cache.v_scales = cache.k_scales + head_rows;
      cache.scale_head_stride = num_rows;
      cache.scale_slot_stride = int64_t{num_rows} * config.num_kv_heads;
      scale_pointers.insert(scale_pointers.end(), {cache.k_scales, cache.v_scales});
    }
    layers_.push_back(cache);
  }
  caches_ = upload(backend, pointers);
  if (scales_) scale_caches_ = upload(backend, scale_pointers);
}

CompactParams KvCacheStorage::compact_rows() const {
  const KvCache& cache = layers_.front();
  const int64_t element = dtype_bytes(cache.dtype);
  CompactParams params;
  params.num_caches = static_cast<int32_t>(2 * layers_.size());
  params.caches = caches_.data();
  params.num_kv_heads = cache.num_kv_heads;
  params.row_bytes = cache.head_size * element;
  params.row_stride = cache.row_stride * element;
  params.head_stride = cache.head_stride * element;
  params.slot_stride = cache.slot_stride * element;
  return params;
}

CompactParams KvCacheStorage::compact_scales() const {
  CompactParams params;
  if (!scales_) return params;
  params.num_caches = static_cast<int32_t>(2 * layers_.size());
  params.caches = scale_caches_.data();
  params.num_kv_heads = layers_.front().num_kv_heads;
  params.row_bytes = sizeof(float);
  params.row_stride = sizeof(float);
  params.head_stride = int64_t{num_rows_} * params.row_stride;
  params.slot_stride = params.head_stride * params.num_kv_heads;
  return params;
}

}  // namespace medusa
