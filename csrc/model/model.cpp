#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace medusa {

Model::Model(ModelConfig config, Backend backend)
    : layers(config.layers.size()), config_(std::move(config)), backend_(std::move(backend)) {}

int64_t Model::packed_bytes() const {
  int64_t bytes = embedding.packed.bytes + untied_lm_head.packed.bytes + final_norm.size() * 4;
  for (const LayerWeights& layer : layers) {
    for (const MatrixPart& part : layer.qkv) bytes += part.matrix.packed.bytes;
    bytes += layer.o.packed.bytes + layer.gate_up.packed.bytes + layer.down.packed.bytes;
    bytes += 4 * (layer.attn_norm.size() + layer.qkv_bias.size() + layer.q_norm.size() +
                  layer.k_norm.size() + layer.ffn_norm.size() + layer.attn_post_norm.size() +
                  layer.ffn_post_norm.size());
  }
  return bytes;
}

std::vector<DeviceArray<float>> Model::rope_tables(int32_t num_positions) const {
  const std::lock_guard<std::mutex> lock(rope_mutex_);
  const int64_t width = config_.head_size;
  const int64_t known = rope_tables_.empty() ? 0 : rope_tables_.front().size() / width;
  if (known >= num_positions) return rope_tables_;
  // Growing by doubling keeps the work linear when sessions of rising length are made.
  const int64_t positions = std::max<int64_t>(num_positions, std::min<int64_t>(2 * known, 1 << 20));
  const std::unique_ptr<Context> context = backend_.make_context();
  std::vector<DeviceArray<float>> grown;
  for (const std::vector<double>& frequencies : config_.inverse_frequencies) {
    std::vector<float> table(static_cast<size_t>(positions * width));
    for (int64_t position = 0; position < positions; ++position) {
      float* row = table.data() + position * width;
      for (int64_t i = 0; i < width / 2; ++i) {
        const double angle = static_cast<double>(position) * frequencies[static_cast<size_t>(i)];
        row[i] = static_cast<float>(std::cos(angle));
        row[width / 2 + i] = static_cast<float>(std::sin(angle));
      }
    }
    grown.emplace_back(backend_, positions * width);
    backend_.copy_in(*context, grown.back().data(), table.data(),
                     static_cast<int64_t>(table.size() * sizeof(float)));
    backend_.synchronize(*context);
  }
  rope_tables_ = std::move(grown);
  return rope_tables_;
}

}  // namespace medusa
