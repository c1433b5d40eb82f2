// Medusa heads: ResBlocks on the last hidden state, then logits over a (draft) vocabulary.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/backend.h"
#include "model/model.h"

namespace medusa {

struct HeadsConfig {
  int32_t num_heads = 0;   // K
  int32_t num_layers = 0;  // ResBlocks per head
  bool root_conditioned = false;
  enum class LmHead { kBase, kShared, kOwn } lm_head = LmHead::kBase;
  std::vector<int32_t> token_map;  // [V'] draft id -> token id; empty: the base's vocabulary
  int32_t draft_vocab_size = 0;    // V'
};

/// Immutable weights. Head k (0-based) guesses the token k + 2 places after the hidden state's own:
/// y = x + silu(W[k,0] x + E[k] e + b[k,0]), then y += silu(W[k,l] y + b[k,l]); logits = U[k] y.
/// e is the root token's embedding scaled to the size of x, in root-conditioned heads only.
class Heads {
 public:
  Heads(std::shared_ptr<const Model> base, HeadsConfig heads_config)
      : model(std::move(base)), config(std::move(heads_config)) {}

  int64_t packed_bytes() const;
  int32_t input_width() const {
    return model->config().hidden_size * (config.root_conditioned ? 2 : 1);
  }
  /// The lm_head of head k.
  const PackedMatrix& lm_head(int32_t k) const;

  std::shared_ptr<const Model> model;
  HeadsConfig config;
  Matrix first_block;              // [K * H, H], of root-conditioned heads [K * H, 2H]
  DeviceArray<float> first_bias;   // [K * H]
  std::vector<Matrix> blocks;      // [(layers - 1) * K] of [H, H], layer by layer
  DeviceArray<float> block_bias;   // [(layers - 1), K, H]
  std::vector<Matrix> lm_heads;    // none, one shared, or K, of [V', H]
  DeviceArray<int32_t> token_map;  // [V'] or empty
};

/// The buffers of one session's head evaluations.
class HeadsRunner {
 public:
  HeadsRunner(const Heads& heads, int32_t max_sequences);

  /// Top-k candidates of every head for the sequences in `slots`.
  /// hidden: [B, H] by slot; roots: [B'] tokens; all pointers on the device.
  void run(Context& context, int32_t num_sequences, const float* hidden, const int32_t* slots,
           const int32_t* roots, int32_t top_k);

  const int32_t* top_ids() const { return top_ids_.data(); }            // [B', K, k]
  const float* top_log_probs() const { return top_log_probs_.data(); }  // [B', K, k]

 private:
  void apply_blocks(Context& context, int32_t num_sequences);
  void apply_lm_heads(Context& context, int32_t num_sequences);
  Activations quantized(Context& context, const PackedMatrix& weight, const float* x,
                        int32_t num_rows, int32_t width);

  const Heads& heads_;
  const Backend& backend_;
  DeviceArray<float> root_embedding_;  // [B, H]
  DeviceArray<float> inputs_;          // [B, H or 2H]
  DeviceArray<float> blocks_;          // [B, K, H]
  DeviceArray<uint8_t> activations_;
  DeviceArray<float> logits_;         // [B, K, V']
  DeviceArray<int32_t> node_depths_;  // the root alone: node tokens are arranged by the session
  DeviceArray<int32_t> node_tokens_;  // [B]
  DeviceArray<int32_t> top_ids_;
  DeviceArray<float> top_log_probs_;
};

}  // namespace medusa
