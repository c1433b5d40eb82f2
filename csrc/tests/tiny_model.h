// A small random decoder for the tests of csrc/model.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cpu/runtime/backend.h"
#include "model/builder.h"

namespace medusa::testing {

struct TinyOptions {
  WeightFormat format;
  std::string isa;
  int32_t sliding_window = 0;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool tied_embeddings = true;
  bool mixed_qkv = false;      // v in another format than q and k
  bool unlike_layers = false;  // the second: norms after in place of before, and no positions
  uint32_t seed = 1;
  int32_t overflowing_token = -1;  // in the FFN of `overflowing_layer`, whatever is before it
  int32_t overflowing_layer = 0;
};

/// RoPE's frequencies without scaling, [D/2].
inline std::vector<double> plain_frequencies(int32_t head_size) {
  std::vector<double> frequencies(static_cast<size_t>(head_size / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(1e4, -2.0 * static_cast<double>(i) / head_size);
  }
  return frequencies;
}

inline ModelConfig tiny_config(const TinyOptions& options) {
  ModelConfig config;
  config.hidden_size = 48;  // no multiple of an instruction set's tile, nor of a group
  config.num_query_heads = 6;
  config.num_kv_heads = 2;
  config.head_size = 16;
  config.ffn_size = 72;
  config.vocab_size = 101;
  config.rms_eps = 1e-5f;
  config.tied_embeddings = options.tied_embeddings;
  config.inverse_frequencies = {plain_frequencies(config.head_size)};
  config.layers.resize(2);
  for (LayerSpec& layer : config.layers) {
    layer.qkv_bias = options.qkv_bias;
    layer.qk_norm = options.qk_norm;
  }
  config.layers[0].window = options.sliding_window;
  if (options.unlike_layers) {
    config.inverse_frequencies.emplace_back(static_cast<size_t>(config.head_size / 2), 0.0);
    config.layers[1].rope = 1;
    config.layers[1].pre_norm = false;
    config.layers[1].post_norm = true;
  }
  return config;
}

/// Dimension 0 is used by the overflowing token's embedding alone, and read by one FFN alone.
inline void plant_overflow(const TinyOptions& options, const std::string& name,
                           std::vector<float>& values, int32_t columns) {
  if (options.overflowing_token < 0) return;
  const auto column_0 = [&](size_t row) -> float& { return values[row * columns]; };
  const size_t num_rows = values.size() / columns;
  const std::string ffn = "layers." + std::to_string(options.overflowing_layer) + ".";
  const bool is_residual = name.back() == 'o' || name.find("down") != std::string::npos;
  if (is_residual) std::fill_n(values.begin(), columns, 0.0f);
  if (name == ffn + "gate" || name == ffn + "up") {
    for (size_t row = 0; row < num_rows; ++row) column_0(row) = 1e20f;
  } else if (name == "embed") {
    for (size_t row = 0; row < num_rows; ++row) column_0(row) = 0;
    column_0(static_cast<size_t>(options.overflowing_token)) = 1e9f;
  }
}

class RandomWeights {
 public:
  explicit RandomWeights(uint32_t seed, const TinyOptions& options = {})
      : options_(options), generator_(seed) {}

  std::vector<float> operator()(int64_t size, float scale, float offset = 0) {
    std::normal_distribution<float> normal(offset, scale);
    std::vector<float> values(static_cast<size_t>(size));
    for (float& value : values) value = normal(generator_);
    return values;
  }

  void set_matrix(WeightSlots& slots, const std::string& name, int32_t rows, int32_t columns) {
    std::vector<float> values =
        (*this)(int64_t{rows} * columns, 2.0f / std::sqrt(static_cast<float>(columns)));
    plant_overflow(options_, name, values, columns);
    slots.set_rows(name, 0, SourceType::kFloat32, values.data(), rows, int64_t{columns} * 4);
  }

  void set_vector(WeightSlots& slots, const std::string& name, int32_t size, float offset) {
    const std::vector<float> values = (*this)(size, 0.1f, offset);
    slots.set_vector(name, values.data(), size);
  }

 private:
  TinyOptions options_;
  std::mt19937 generator_;
};

/// The norms before and after attention and MLP that a layer has.
inline void set_norms(RandomWeights& random, WeightSlots& slots, const std::string& prefix,
                      const LayerSpec& layer, int32_t hidden_size) {
  for (const std::string name : {"attn", "ffn"}) {
    if (layer.pre_norm) random.set_vector(slots, prefix + name + "_norm", hidden_size, 1);
    if (layer.post_norm) random.set_vector(slots, prefix + name + "_post_norm", hidden_size, 1);
  }
}

inline std::shared_ptr<Model> make_tiny_model(const TinyOptions& options, Backend backend) {
  const ModelConfig config = tiny_config(options);
  Formats formats = {{"embed", options.format}, {"lm_head", options.format}};
  for (int32_t i = 0; i < config.num_layers(); ++i) {
    for (const char* name : {"q", "k", "v", "o", "gate", "up", "down"}) {
      formats["layers." + std::to_string(i) + "." + name] = options.format;
    }
    if (options.mixed_qkv) formats["layers." + std::to_string(i) + ".v"] = kBFloat16Weights;
  }
  ModelBuilder builder(config, formats, std::move(backend));
  WeightSlots& slots = builder.slots();
  RandomWeights random(options.seed, options);
  random.set_matrix(slots, "embed", config.vocab_size, config.hidden_size);
  if (!config.tied_embeddings) {
    random.set_matrix(slots, "lm_head", config.vocab_size, config.hidden_size);
  }
  random.set_vector(slots, "final_norm", config.hidden_size, 1);
  for (int32_t i = 0; i < config.num_layers(); ++i) {
    const std::string prefix = "layers." + std::to_string(i) + ".";
    random.set_matrix(slots, prefix + "q", config.q_width(), config.hidden_size);
    random.set_matrix(slots, prefix + "k", config.kv_width(), config.hidden_size);
    random.set_matrix(slots, prefix + "v", config.kv_width(), config.hidden_size);
    random.set_matrix(slots, prefix + "o", config.hidden_size, config.q_width());
    random.set_matrix(slots, prefix + "gate", config.ffn_size, config.hidden_size);
    random.set_matrix(slots, prefix + "up", config.ffn_size, config.hidden_size);
    random.set_matrix(slots, prefix + "down", config.hidden_size, config.ffn_size);
    const LayerSpec& layer = config.layers[static_cast<size_t>(i)];
    set_norms(random, slots, prefix, layer, config.hidden_size);
    if (layer.qk_norm) {
      random.set_vector(slots, prefix + "q_norm", config.head_size, 1);
      random.set_vector(slots, prefix + "k_norm", config.head_size, 1);
    }
    if (layer.qkv_bias) {
      random.set_vector(slots, prefix + "q_bias", config.q_width(), 0);
      random.set_vector(slots, prefix + "k_bias", config.kv_width(), 0);
      random.set_vector(slots, prefix + "v_bias", config.kv_width(), 0);
    }
  }
  return builder.finish();
}

inline std::shared_ptr<Model> make_tiny_model(const TinyOptions& options) {
  return make_tiny_model(options, cpu::make_backend(options.isa));
}

/// K random heads with a draft vocabulary of 40 tokens.
inline std::shared_ptr<Heads> make_tiny_heads(const std::shared_ptr<Model>& model,
                                              bool root_conditioned, int32_t num_layers,
                                              const WeightFormat& format) {
  HeadsConfig config;
  config.num_heads = 3;
  config.num_layers = num_layers;
  config.root_conditioned = root_conditioned;
  config.lm_head = HeadsConfig::LmHead::kShared;
  for (int32_t i = 0; i < 40; ++i) config.token_map.push_back(2 * i + 1);
  const int32_t width = model->config().hidden_size;
  HeadsBuilder builder(model, config, format, format);
  RandomWeights random(7);
  random.set_matrix(builder.slots(), "lm_head", 40, width);
  for (int32_t k = 0; k < config.num_heads; ++k) {
    for (int32_t layer = 0; layer < num_layers; ++layer) {
      const std::string prefix = std::to_string(k) + "." + std::to_string(layer) + ".";
      random.set_matrix(builder.slots(), prefix + "weight", width,
                        root_conditioned && layer == 0 ? 2 * width : width);
      random.set_vector(builder.slots(), prefix + "bias", width, 0);
    }
  }
  return builder.finish();
}

}  // namespace medusa::testing
