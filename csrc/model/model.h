// A model: immutable packed weights of one backend.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/backend.h"
#include "core/packed_matrix.h"
#include "model/config.h"

namespace medusa {

/// A packed matrix with the memory that holds it.
struct Matrix {
  PackedMatrix packed;
  Storage storage;
};

/// A piece of a fused product: it writes outputs column … column + num_outputs - 1.
struct MatrixPart {
  Matrix matrix;
  int32_t column = 0;
};

struct LayerWeights {
  DeviceArray<float> attn_norm;  // [H] or empty, as are the other norms
  std::vector<MatrixPart> qkv;   // one product [(Q + 2G) * D, H]; three where formats differ
  DeviceArray<float> qkv_bias;   // [(Q + 2G) * D] or empty
  DeviceArray<float> q_norm;     // [D] or empty
  DeviceArray<float> k_norm;     // [D] or empty
  Matrix o;                      // [H, Q * D]
  DeviceArray<float> attn_post_norm;
  DeviceArray<float> ffn_norm;
  Matrix gate_up;  // [2F, H], gate rows first
  Matrix down;     // [H, F]
  DeviceArray<float> ffn_post_norm;
};

class Model {
 public:
  Model(ModelConfig config, Backend backend);

  const ModelConfig& config() const { return config_; }
  const Backend& backend() const { return backend_; }
  const PackedMatrix& lm_head() const {
    return config_.tied_embeddings ? embedding.packed : untied_lm_head.packed;
  }
  int64_t packed_bytes() const;

  /// Of each rotary table, cos and sin of every position below `num_positions`: [positions, D], D/2
  /// cosines then D/2 sines, computed in float64. Shared and grown by the sessions of the model.
  std::vector<DeviceArray<float>> rope_tables(int32_t num_positions) const;

  Matrix embedding;               // [V, H]
  Matrix untied_lm_head;          // [V, H], empty when tied
  DeviceArray<float> final_norm;  // [H]
  std::vector<LayerWeights> layers;

 private:
  ModelConfig config_;
  Backend backend_;
  mutable std::mutex rope_mutex_;
  mutable std::vector<DeviceArray<float>> rope_tables_;
};

}  // namespace medusa
