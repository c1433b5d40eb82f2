// The record of a model: the sizes, rotary tables and layers that shape a decoder's forward.
#pragma once

#include <cstdint>
#include <vector>

namespace medusa {

/// What one layer does where layers differ, within a model or between families.
struct LayerSpec {
  int32_t window = 0;      // positions a query sees, its own included; 0: all before it
  int32_t rope = 0;        // which of the rotary tables turns q and k
  bool qkv_bias = false;   // q, k and v have biases
  bool qk_norm = false;    // each head of q and k is normalised before it is turned
  bool pre_norm = true;    // attention and MLP read the normalised stream
  bool post_norm = false;  // what attention and MLP add to the stream is normalised
};

struct ModelConfig {
  int32_t hidden_size = 0;      // H
  int32_t num_query_heads = 0;  // Q
  int32_t num_kv_heads = 0;     // G
  int32_t head_size = 0;        // D
  int32_t ffn_size = 0;         // F
  int32_t vocab_size = 0;       // V
  float rms_eps = 1e-5f;
  bool tied_embeddings = false;
  /// [tables][D/2], the angle per position of every pair of dimensions, scaling applied.
  std::vector<std::vector<double>> inverse_frequencies;
  std::vector<LayerSpec> layers;  // [L]

  int32_t num_layers() const { return static_cast<int32_t>(layers.size()); }
  int32_t q_width() const { return num_query_heads * head_size; }
  int32_t kv_width() const { return num_kv_heads * head_size; }
  int32_t qkv_width() const { return q_width() + 2 * kv_width(); }
};

/// visit(name, field) for every field, under its name in medusa_ext/checkpoints/config.py.
template <typename Visit>
void visit_fields(LayerSpec& layer, const Visit& visit) {
  visit("window", layer.window);
  visit("rope", layer.rope);
  visit("qkv_bias", layer.qkv_bias);
  visit("qk_norm", layer.qk_norm);
  visit("pre_norm", layer.pre_norm);
  visit("post_norm", layer.post_norm);
}

template <typename Visit>
void visit_fields(ModelConfig& config, const Visit& visit) {
  visit("hidden_size", config.hidden_size);
  visit("num_query_heads", config.num_query_heads);
  visit("num_kv_heads", config.num_kv_heads);
  visit("head_size", config.head_size);
  visit("ffn_size", config.ffn_size);
  visit("vocab_size", config.vocab_size);
  visit("rms_eps", config.rms_eps);
  visit("tied_embeddings", config.tied_embeddings);
  visit("inverse_frequencies", config.inverse_frequencies);
  visit("layers", config.layers);
}

/// Throws std::invalid_argument naming the field, what it needs and what it got.
void check_config(const ModelConfig& config);

}  // namespace medusa
