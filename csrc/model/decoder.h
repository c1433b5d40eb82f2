// The decoder's forward, written once over the kernel table.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/params/cache.h"
#include "core/params/rows.h"
#include "model/model.h"

namespace medusa {

/// What a forward leaves; null: not wanted.
struct ForwardOutputs {
  float* hidden = nullptr;  // [R, H], after the final norm
  /// The first rows, which alone go through the lm_head.
  int32_t num_targets = 0;
  int32_t* targets = nullptr;  // [num_targets] arg-max tokens
  float* logits = nullptr;     // [num_targets, V], instead of targets
};

/// Called while a forward is under way: after the embedding (layer -1), and after the attention and
/// the FFN of every layer. What it throws ends the forward there.
using ForwardObserver = std::function<void(int32_t layer)>;

/// A model with the buffers for forwards of up to `max_rows` rows.
class Decoder {
 public:
  Decoder(std::shared_ptr<const Model> model, int32_t max_rows, int32_t max_positions);

  const Model& model() const { return *model_; }
  int32_t max_rows() const { return max_rows_; }

  /// The residual stream [R, H] on the device, for an observer of a forward.
  const float* residual() const { return residual_.data(); }

  /// Appends the rows' K/V to `caches`, one a layer. `rows` and `outputs` point to device memory.
  void forward(Context& context, const RowTable& rows, const std::vector<KvCache>& caches,
               const ForwardOutputs& outputs, const ForwardObserver& observe = nullptr);

 private:
  void attention_block(Context& context, const RowTable& rows, const LayerWeights& layer,
                       const LayerSpec& spec, const KvCache& cache);
  void ffn_block(Context& context, int32_t num_rows, const LayerWeights& layer);
  void finish(Context& context, int32_t num_rows, const ForwardOutputs& outputs);
  /// The residual stream in the form that `reader` takes, normalised unless `norm` is empty.
  Activations read_stream(Context& context, const DeviceArray<float>& norm, int32_t num_rows,
                          const PackedMatrix& reader);
  /// RMSNorm of the residual stream from row `first` on, in the form that `reader` takes.
  Activations normalize(Context& context, const float* weight, int32_t first, int32_t num_rows,
                        const PackedMatrix& reader, float* out_float);
  /// Adds weight * in to the residual stream: the product does, or the norm after it.
  void add_to_stream(Context& context, const Activations& in, const Matrix& weight,
                     int32_t num_rows, const DeviceArray<float>& post_norm);
  Activations activations_for(const PackedMatrix& reader, const DeviceArray<uint8_t>& buffer) const;

  std::shared_ptr<const Model> model_;
  int32_t max_rows_;
  std::vector<DeviceArray<float>> rope_tables_;
  DeviceArray<float> residual_;  // [R, H]
  DeviceArray<float> qkv_;       // [R, (Q + 2G) * D]
  DeviceArray<uint8_t> inputs_;  // normalised rows, as the next product reads them
  DeviceArray<uint8_t> mixed_;   // attention or FFN rows, as o or down reads them
  DeviceArray<float> added_;     // [R, H], o's or down's rows before a norm; empty without such
};

}  // namespace medusa
