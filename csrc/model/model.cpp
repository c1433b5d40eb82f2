#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace medusa {

Model::Model(ModelConfig config, Backend backend)
    : layers(static_cast<size_t>(config.num_layers)),
      config_(std::move(config)),
      backend_(std::move(backend)) {}

int64_t Model::packed_bytes() const {
  int64_t bytes = embedding.packed.bytes + untied_lm_head.packed.bytes + final_norm.size() * 4;
  for (const LayerWeights& layer : layers) {
    for (const MatrixPart& part : layer.qkv) bytes += part.matrix.packed.bytes;
    bytes += layer.o.packed.bytes + layer.gate_up.packed.bytes + layer.down.packed.bytes;
    bytes += 4 * (layer.attn_norm.size() + layer.qkv_bias.size() + layer.q_norm.size() +
                  layer.k_norm.size() + layer.ffn_norm.size());
  }
  return bytes;
}

DeviceArray<float> Model::rope_table(int32_t num_positions) const {
  const std::lock_guard<std::mutex> lock(rope_mutex_);
  const int64_t width = config_.head_size;
  if (rope_table_.size() >= num_positions * width) return rope_table_;
  // Growing by doubling keeps the work linear when sessions of rising length are made.
  const int64_t positions =
      std::max<int64_t>(num_positions, std::min<int64_t>(2 * rope_table_.size() / width, 1 << 20));
  std::vector<float> table(static_cast<size_t>(positions * width));
  for (int64_t position = 0; position < positions; ++position) {
    float* row = table.data() + position * width;
    for (int64_t i = 0; i < width / 2; ++i) {
      const double angle =
          static_cast<double>(position) * config_.inverse_frequencies[static_cast<size_t>(i)];
      row[i] = static_cast<float>(std::cos(angle));
      row[width / 2 + i] = static_cast<float>(std::sin(angle));
    }
  }
  DeviceArray<float> grown(backend_, positions * width);
  const std::unique_ptr<Context> context = backend_.make_context();
  backend_.copy_in(*context, grown.data(), table.data(),
                   static_cast<int64_t>(table.size() * sizeof(float)));
  backend_.synchronize(*context);
  rope_table_ = grown;
  return rope_table_;
}

}  // namespace medusa
