// The sizes and options that shape a decoder's forward.
#pragma once

#include <cstdint>
#include <vector>

namespace medusa {

struct ModelConfig {
  int32_t num_layers = 0;       // L
  int32_t hidden_size = 0;      // H
  int32_t num_query_heads = 0;  // Q
  int32_t num_kv_heads = 0;     // G
  int32_t head_size = 0;        // D
  int32_t ffn_size = 0;         // F
  int32_t vocab_size = 0;       // V
  float rms_eps = 1e-5f;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool tied_embeddings = false;
  std::vector<double> inverse_frequencies;  // [D/2], RoPE angle per position, scaling applied
  std::vector<int32_t> layer_windows;       // [L], 0: full attention

  int32_t q_width() const { return num_query_heads * head_size; }
  int32_t kv_width() const { return num_kv_heads * head_size; }
  int32_t qkv_width() const { return q_width() + 2 * kv_width(); }
};

/// Throws std::invalid_argument naming the field, what it needs and what it got.
void check_config(const ModelConfig& config);

}  // namespace medusa
