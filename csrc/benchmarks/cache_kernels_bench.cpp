#include <cmath>
#include <numeric>

#include "benchmarks/kernel_bench.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kScaleBytes = sizeof(float);
constexpr int64_t kGap = 64;  // after each head, as in the engine's pages

/// K and V of as many layers as do not fit the caches of the machine, in pages of all layers.
class Caches {
 public:
  Caches(const ModelSizes& model, DType dtype, int32_t num_rows, int64_t least_bytes)
      : table_((num_rows + kPageRows - 1) / kPageRows),
        head_bytes_(int64_t{kPageRows} * model.head_size * dtype_bytes(dtype) + kGap),
        bytes_(model.num_kv_heads * head_bytes_),
        num_scales_(dtype == DType::kInt8 ? int64_t{model.num_kv_heads} * kPageRows : 0),
        num_layers_(static_cast<int>(least_bytes / (2 * bytes_ * num_pages())) + 1),
        page_bytes_(2 * num_layers_ * (bytes_ + num_scales_ * kScaleBytes)),
        pages_(num_pages() * page_bytes_) {
    std::iota(table_.begin(), table_.end(), 0);
    char* values = pages_.data();
    char* scales = values + 2 * num_layers_ * bytes_;
    for (int layer = 0; layer < num_layers_; ++layer) {
      KvCache cache;
      cache.dtype = dtype;
      cache.num_kv_heads = model.num_kv_heads;
      cache.head_size = model.head_size;
      cache.num_rows = num_rows;
      cache.row_stride = model.head_size;
      cache.head_stride = head_bytes_ / dtype_bytes(dtype);
      cache.slot_stride = page_bytes_ / dtype_bytes(dtype);
      cache.scale_head_stride = kPageRows;
      cache.scale_slot_stride = page_bytes_ / kScaleBytes;
      cache.page_table = {table_.data(), static_cast<int32_t>(num_pages())};
      for (void** part : {&cache.k, &cache.v}) {
        *part = values;
        fill(dtype, values);
        values += bytes_;
      }
      if (dtype == DType::kInt8) {
        for (float** part : {&cache.k_scales, &cache.v_scales}) {
          *part = reinterpret_cast<float*>(scales);
          fill_scales(scales);
          scales += num_scales_ * kScaleBytes;
        }
      }
      layers.push_back(cache);
    }
  }

  /// Bytes of `count` rows of K and V of one layer.
  double row_bytes(double count) const {
    return 2 * count / kPageRows * static_cast<double>(bytes_ + num_scales_ * kScaleBytes);
  }

  std::vector<KvCache> layers;

 private:
  int64_t num_pages() const { return static_cast<int64_t>(table_.size()); }

  /// One pattern all over every page's part at `out`, which no kernel sees as a whole.
  void fill(DType dtype, char* out) const {
    constexpr int64_t kPattern = 1 << 12;
    for (int64_t i = 0; i < kPattern; ++i) {
      const float value = sample_value(i);
      if (dtype == DType::kFloat32) reinterpret_cast<float*>(out)[i] = value;
      if (dtype == DType::kBFloat16)
        reinterpret_cast<BFloat16*>(out)[i] = from_float<BFloat16>(value);
      if (dtype == DType::kFloat16) reinterpret_cast<Float16*>(out)[i] = from_float<Float16>(value);
      if (dtype == DType::kInt8) out[i] = static_cast<char>(std::lround(value * 127));
    }
    const int64_t pattern_bytes = kPattern * dtype_bytes(dtype);
    for (int64_t at = pattern_bytes; at < bytes_; at += pattern_bytes) {
      std::memcpy(out + at, out, static_cast<size_t>(std::min(pattern_bytes, bytes_ - at)));
    }
    for (int64_t page = 1; page < num_pages(); ++page) {
      std::memcpy(out + page * page_bytes_, out, static_cast<size_t>(bytes_));
    }
  }

  void fill_scales(char* scales) const {
    for (int64_t page = 0; page < num_pages(); ++page) {
      std::fill_n(reinterpret_cast<float*>(scales + page * page_bytes_), num_scales_, 0.01f);
    }
  }

  std::vector<int32_t> table_;
  int64_t head_bytes_;          // from head to head
  int64_t bytes_, num_scales_;  // of K or V of a layer in a page
  int num_layers_;
  int64_t page_bytes_;
  Pages pages_;
};

constexpr int64_t kBeyondCaches = int64_t{192} << 20;

void tree_attention(benchmark::State& state, const ModelSizes& model, DType dtype,
                    int32_t num_nodes, int32_t length) {
  const TreeCase tree(num_nodes, length);
  const Caches caches(model, dtype, length + num_nodes, kBeyondCaches);
  const int32_t width = model.num_query_heads * model.head_size;
  std::vector<float> q(int64_t{num_nodes} * width), out(q.size());
  for (size_t i = 0; i < q.size(); ++i) q[i] = sample_value(static_cast<int64_t>(i));
  TreeAttentionParams params;
  params.rows = tree.rows;
  params.num_query_heads = model.num_query_heads;
  params.scale = 1.0f / std::sqrt(static_cast<float>(model.head_size));
  params.q = q.data();
  params.q_row_stride = width;
  params.out = out.data();
  CpuContext context(num_threads());
  size_t layer = 0;
  for (auto _ : state) {
    params.cache = caches.layers[layer++ % caches.layers.size()];
    table().tree_attention(context, params);
  }
  set_rate(state, "GB/s", caches.row_bytes(length + num_nodes));
  set_rate(state, "GOP/s", 4.0 * num_nodes * width * (length + num_nodes));
}

void rope_append(benchmark::State& state, const ModelSizes& model, DType dtype, int32_t num_nodes) {
  constexpr int32_t kLength = 512;
  const TreeCase tree(num_nodes, kLength);
  const Caches caches(model, dtype, kLength + num_nodes, 1);
  std::vector<float> qkv(int64_t{num_nodes} * model.qkv_width(), 0.5f);
  // An eighth of a turn keeps the values' size however often they are rotated.
  std::vector<float> cos_sin(int64_t{kLength + num_nodes} * model.head_size, std::sqrt(0.5f));
  RopeAppendParams params;
  params.rows = tree.rows;
  params.cache = caches.layers[0];
  params.num_query_heads = model.num_query_heads;
  params.qkv = qkv.data();
  params.cos_sin = cos_sin.data();
  CpuContext context(num_threads());
  for (auto _ : state) table().rope_append(context, params);
  const int32_t rotated = (model.num_query_heads + model.num_kv_heads) * model.head_size;
  set_rate(state, "GB/s",
           4.0 * num_nodes * (model.qkv_width() + rotated) + caches.row_bytes(num_nodes));
}

void compact(benchmark::State& state, const ModelSizes& model, DType dtype) {
  constexpr int32_t kLength = 512, kNodes = 16, kLayers = 32;
  const int64_t row_bytes = model.head_size * dtype_bytes(dtype);
  CompactParams params;
  params.row_bytes = params.row_stride = row_bytes;
  params.head_stride = row_bytes * (kLength + kNodes);
  params.slot_stride = params.head_stride * model.num_kv_heads;
  const Pages pages(2 * kLayers * params.slot_stride);
  std::vector<void*> caches;
  for (int i = 0; i < 2 * kLayers; ++i) caches.push_back(pages.data() + i * params.slot_stride);
  std::memset(pages.data(), 1, static_cast<size_t>(2 * kLayers * params.slot_stride));
  const std::vector<int32_t> path = {0, 2, 6, 14};
  const int32_t count = static_cast<int32_t>(path.size());
  int32_t length = kLength;
  params.num_caches = 2 * kLayers;
  params.caches = caches.data();
  params.num_sequences = 1;
  params.num_kv_heads = model.num_kv_heads;
  params.max_path = count;
  params.path = path.data();
  params.count = &count;
  params.length = &length;
  params.advance = false;
  CpuContext context(num_threads());
  for (auto _ : state) table().compact(context, params);
  const int rows_moved = count - 1;  // the root stays
  set_rate(state, "GB/s",
           2.0 * rows_moved * static_cast<double>(row_bytes) * model.num_kv_heads * 2 * kLayers);
}

}  // namespace

void register_cache_kernels(const ModelSizes& model) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
    const std::string suffix = std::string("/") + model.name + "/" + dtype_name(dtype);
    for (const int32_t length : {512, 4096}) {
      for (const int32_t nodes : {1, 16, 64}) {
        register_benchmark(
            "tree_attention" + suffix + "/context:" + std::to_string(length) +
                "/N:" + std::to_string(nodes),
            [=](benchmark::State& state) { tree_attention(state, model, dtype, nodes, length); });
      }
    }
    for (const int32_t nodes : {1, 16, 64}) {
      register_benchmark("rope_append" + suffix + "/N:" + std::to_string(nodes),
                         [=](benchmark::State& state) { rope_append(state, model, dtype, nodes); });
    }
    register_benchmark("compact" + suffix + "/layers:32/path:4",
                       [=](benchmark::State& state) { compact(state, model, dtype); });
  }
}

}  // namespace medusa::cpu
