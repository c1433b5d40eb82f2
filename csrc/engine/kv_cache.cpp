#include "engine/kv_cache.h"

#include <memory>
#include <numeric>

namespace medusa {
namespace {

template <typename T>
DeviceArray<T> upload(const Backend& backend, Context& context, const std::vector<T>& values) {
  const int64_t size = static_cast<int64_t>(values.size());
  DeviceArray<T> array(backend, size);
  backend.copy_in(context, array.data(), values.data(), size * static_cast<int64_t>(sizeof(T)));
  return array;
}

/// From one head's rows to the next one's. Heads of power-of-two sizes next to each other would
/// all start at the same place of a CPU's cache sets.
int64_t head_bytes(const ModelConfig& config, DType dtype) {
  constexpr int64_t kGap = 64;
  return int64_t{kPageRows} * config.head_size * dtype_bytes(dtype) + kGap;
}

}  // namespace

int64_t KvCacheStorage::page_bytes(const ModelConfig& config, DType dtype) {
  const int64_t scale_bytes = dtype == DType::kInt8 ? kPageRows * int64_t{sizeof(float)} : 0;
  return int64_t{2} * config.num_layers() * config.num_kv_heads *
         (head_bytes(config, dtype) + scale_bytes);
}

KvCacheStorage::KvCacheStorage(const Model& model, DType dtype, int32_t num_slots, int32_t num_rows,
                               int32_t num_pages)
    : backend_(model.backend()),
      storage_(backend_.allocate(page_bytes(model.config(), dtype) * num_pages)) {
  const ModelConfig& config = model.config();
  const int64_t stride = page_bytes(config, dtype);
  const int64_t plane_bytes = config.num_kv_heads * head_bytes(config, dtype);
  const std::unique_ptr<Context> context = backend_.make_context();
  const std::vector<int32_t> no_pages(static_cast<size_t>(num_slots * pages_for(num_rows)));
  page_table_ = upload(backend_, *context, no_pages);

  KvCache cache;
  cache.dtype = dtype;
  cache.num_kv_heads = config.num_kv_heads;
  cache.head_size = config.head_size;
  cache.num_rows = num_rows;
  cache.row_stride = config.head_size;
  cache.head_stride = head_bytes(config, dtype) / dtype_bytes(dtype);
  cache.slot_stride = stride / dtype_bytes(dtype);
  cache.page_table = {page_table_.data(), pages_for(num_rows)};
  auto* plane = static_cast<uint8_t*>(storage_.get());
  auto* scales = reinterpret_cast<float*>(plane + 2 * config.num_layers() * plane_bytes);
  std::vector<void*> planes, scale_planes;
  for (int32_t i = 0; i < config.num_layers(); ++i) {
    cache.k = plane;
    cache.v = plane + plane_bytes;
    plane += 2 * plane_bytes;
    planes.insert(planes.end(), {cache.k, cache.v});
    if (dtype == DType::kInt8) {
      cache.scale_head_stride = kPageRows;
      cache.scale_slot_stride = stride / static_cast<int64_t>(sizeof(float));
      cache.k_scales = scales;
      cache.v_scales = scales + int64_t{config.num_kv_heads} * kPageRows;
      scales = cache.v_scales + int64_t{config.num_kv_heads} * kPageRows;
      scale_planes.insert(scale_planes.end(), {cache.k_scales, cache.v_scales});
    }
    layers_.push_back(cache);
  }
  caches_ = upload(backend_, *context, planes);
  scale_caches_ = upload(backend_, *context, scale_planes);

  std::vector<int32_t> second_page(kPageRows);
  std::iota(second_page.begin(), second_page.end(), kPageRows);
  copied_pages_ = DeviceArray<int32_t>(backend_, 2);
  copied_path_ = upload(backend_, *context, second_page);
  copied_count_ = DeviceArray<int32_t>(backend_, 1);
  no_length_ = upload(backend_, *context, std::vector<int32_t>{0});
  backend_.synchronize(*context);
}

void KvCacheStorage::set_page(Context& context, int32_t slot, int32_t index, int32_t page) const {
  int32_t* entry =
      page_table_.data() + int64_t{slot} * layers_.front().page_table.pages_per_slot + index;
  backend_.copy_in(context, entry, &page, sizeof page);
}

void KvCacheStorage::copy_rows(Context& context, int32_t from, int32_t to, int32_t count) const {
  if (count == 0) return;
  const int32_t pages[2] = {to, from};
  backend_.copy_in(context, copied_pages_.data(), pages, sizeof pages);
  backend_.copy_in(context, copied_count_.data(), &count, sizeof count);
  for (CompactParams params : {compact_rows(), compact_scales()}) {
    params.page_table = {copied_pages_.data(), 2};
    params.num_sequences = 1;
    params.max_path = kPageRows;
    params.path = copied_path_.data();
    params.count = copied_count_.data();
    params.length = no_length_.data();
    params.advance = false;
    if (params.num_caches > 0) backend_.kernels->compact(context, params);
  }
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
  params.page_table = cache.page_table;
  return params;
}

CompactParams KvCacheStorage::compact_scales() const {
  const KvCache& cache = layers_.front();
  CompactParams params;
  if (!cache.k_scales) return params;
  params.num_caches = static_cast<int32_t>(2 * layers_.size());
  params.caches = scale_caches_.data();
  params.num_kv_heads = cache.num_kv_heads;
  params.row_bytes = sizeof(float);
  params.row_stride = params.row_bytes;
  params.head_stride = cache.scale_head_stride * params.row_bytes;
  params.slot_stride = cache.scale_slot_stride * params.row_bytes;
  params.page_table = cache.page_table;
  return params;
}

}  // namespace medusa
