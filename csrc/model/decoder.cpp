#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace medusa {

Decoder::Decoder(std::shared_ptr<const Model> model, int32_t max_rows, int32_t max_positions)
    : model_(std::move(model)), max_rows_(max_rows) {
  const ModelConfig& config = model_->config();
  const Backend& backend = model_->backend();
  rope_tables_ = model_->rope_tables(max_positions);
  residual_ = DeviceArray<float>(backend, int64_t{max_rows} * config.hidden_size);
  qkv_ = DeviceArray<float>(backend, int64_t{max_rows} * config.qkv_width());
  int64_t input_bytes = 0;
  int64_t mixed_bytes = 0;
  const auto grow = [&](int64_t& bytes, const PackedMatrix& reader) {
    const KernelTable& kernels = *backend.kernels;
    bytes = std::max(bytes, kernels.activation_bytes(kernels.activation_format(reader.format),
                                                     max_rows, reader.num_inputs));
  };
  for (const LayerWeights& layer : model_->layers) {
    for (const MatrixPart& part : layer.qkv) grow(input_bytes, part.matrix.packed);
    grow(input_bytes, layer.gate_up.packed);
    grow(mixed_bytes, layer.o.packed);
    grow(mixed_bytes, layer.down.packed);
  }
  grow(input_bytes, model_->lm_head());
  const bool any_post_norm = std::any_of(config.layers.begin(), config.layers.end(),
                                         [](const LayerSpec& layer) { return layer.post_norm; });
  if (any_post_norm) added_ = DeviceArray<float>(backend, residual_.size());
  inputs_ = DeviceArray<uint8_t>(backend, input_bytes);
  mixed_ = DeviceArray<uint8_t>(backend, mixed_bytes);
}

void Decoder::forward(Context& context, const RowTable& rows, const std::vector<KvCache>& caches,
                      const ForwardOutputs& outputs, const ForwardObserver& observe) {
  const ModelConfig& config = model_->config();
  EmbedParams embed;
  embed.num_rows = rows.num_rows;
  embed.tokens = rows.tokens;
  embed.table = &model_->embedding.packed;
  embed.out = residual_.data();
  model_->backend().kernels->embed(context, embed);
  if (observe) observe(-1);
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const auto layer = static_cast<int32_t>(i);
    attention_block(context, rows, model_->layers[i], config.layers[i], caches[i]);
    if (observe) observe(layer);
    ffn_block(context, rows.num_rows, model_->layers[i]);
    if (observe) observe(layer);
  }
  finish(context, rows.num_rows, outputs);
}

Activations Decoder::activations_for(const PackedMatrix& reader,
                                     const DeviceArray<uint8_t>& buffer) const {
  Activations activations;
  activations.format = model_->backend().kernels->activation_format(reader.format);
  activations.width = reader.num_inputs;
  activations.data = buffer.data();
  return activations;
}

Activations Decoder::normalize(Context& context, const float* weight, int32_t first,
                               int32_t num_rows, const PackedMatrix& reader, float* out_float) {
  RmsNormParams norm;
  norm.num_rows = num_rows;
  norm.width = model_->config().hidden_size;
  norm.epsilon = model_->config().rms_eps;
  norm.x = residual_.data() + int64_t{first} * norm.width;
  norm.weight = weight;
  norm.out = activations_for(reader, inputs_);
  norm.out_float = out_float;
  model_->backend().kernels->rms_norm(context, norm);
  return norm.out;
}

Activations Decoder::read_stream(Context& context, const DeviceArray<float>& norm, int32_t num_rows,
                                 const PackedMatrix& reader) {
  if (norm.size() > 0) return normalize(context, norm.data(), 0, num_rows, reader, nullptr);
  QuantizeParams params;
  params.num_rows = num_rows;
  params.width = model_->config().hidden_size;
  params.x = residual_.data();
  params.out = activations_for(reader, inputs_);
  model_->backend().kernels->quantize(context, params);
  return params.out;
}

void Decoder::add_to_stream(Context& context, const Activations& in, const Matrix& weight,
                            int32_t num_rows, const DeviceArray<float>& post_norm) {
  const ModelConfig& config = model_->config();
  const KernelTable& kernels = *model_->backend().kernels;
  const bool is_normed = post_norm.size() > 0;
  LinearParams product;
  product.num_rows = num_rows;
  product.in = in;
  product.weight = &weight.packed;
  product.epilogue = is_normed ? Epilogue::kStore : Epilogue::kAdd;
  product.out = is_normed ? added_.data() : residual_.data();
  product.out_stride = config.hidden_size;
  kernels.linear(context, product);
  if (!is_normed) return;
  RmsNormParams norm;
  norm.num_rows = num_rows;
  norm.width = config.hidden_size;
  norm.epsilon = config.rms_eps;
  norm.x = added_.data();
  norm.weight = post_norm.data();
  norm.add_to = residual_.data();
  kernels.rms_norm(context, norm);
}

void Decoder::attention_block(Context& context, const RowTable& rows, const LayerWeights& layer,
                              const LayerSpec& spec, const KvCache& cache) {
  const ModelConfig& config = model_->config();
  const KernelTable& kernels = *model_->backend().kernels;
  LinearParams product;
  product.num_rows = rows.num_rows;
  product.out_stride = config.qkv_width();
  for (const MatrixPart& part : layer.qkv) {
    product.weight = &part.matrix.packed;
    const bool reusable = &part != &layer.qkv.front() &&
                          product.in.format == kernels.activation_format(product.weight->format);
    if (!reusable) {
      product.in = read_stream(context, layer.attn_norm, rows.num_rows, *product.weight);
    }
    product.bias = spec.qkv_bias ? layer.qkv_bias.data() + part.column : nullptr;
    product.out = qkv_.data() + part.column;
    kernels.linear(context, product);
  }

  RopeAppendParams rope;
  rope.rows = rows;
  rope.cache = cache;
  rope.num_query_heads = config.num_query_heads;
  rope.qkv = qkv_.data();
  rope.cos_sin = rope_tables_[static_cast<size_t>(spec.rope)].data();
  rope.q_norm = spec.qk_norm ? layer.q_norm.data() : nullptr;
  rope.k_norm = spec.qk_norm ? layer.k_norm.data() : nullptr;
  rope.epsilon = config.rms_eps;
  kernels.rope_append(context, rope);

  TreeAttentionParams attention;
  attention.rows = rows;
  attention.cache = cache;
  attention.num_query_heads = config.num_query_heads;
  attention.sliding_window = spec.window;
  attention.scale = 1.0f / std::sqrt(static_cast<float>(config.head_size));
  attention.q = qkv_.data();
  attention.q_row_stride = config.qkv_width();
  attention.out_activations = activations_for(layer.o.packed, mixed_);
  kernels.tree_attention(context, attention);

  add_to_stream(context, attention.out_activations, layer.o, rows.num_rows, layer.attn_post_norm);
}

void Decoder::ffn_block(Context& context, int32_t num_rows, const LayerWeights& layer) {
  LinearParams gate_up;
  gate_up.num_rows = num_rows;
  gate_up.weight = &layer.gate_up.packed;
  gate_up.in = read_stream(context, layer.ffn_norm, num_rows, *gate_up.weight);
  gate_up.epilogue = Epilogue::kSiluMul;
  gate_up.out_activations = activations_for(layer.down.packed, mixed_);
  model_->backend().kernels->linear(context, gate_up);
  add_to_stream(context, gate_up.out_activations, layer.down, num_rows, layer.ffn_post_norm);
}

void Decoder::finish(Context& context, int32_t num_rows, const ForwardOutputs& outputs) {
  const ModelConfig& config = model_->config();
  const float* weight = model_->final_norm.data();
  const PackedMatrix& lm_head = model_->lm_head();
  if (outputs.num_targets > 0) {
    LinearParams product;
    product.num_rows = outputs.num_targets;
    product.weight = &lm_head;
    product.in = normalize(context, weight, 0, outputs.num_targets, lm_head, outputs.hidden);
    product.epilogue = outputs.logits ? Epilogue::kStore : Epilogue::kArgmax;
    product.out = outputs.logits;
    product.out_stride = config.vocab_size;
    product.argmax = outputs.targets;
    model_->backend().kernels->linear(context, product);
  }
  const int32_t unscored = num_rows - outputs.num_targets;
  if (unscored == 0 || !outputs.hidden) return;
  normalize(context, weight, outputs.num_targets, unscored, lm_head,
            outputs.hidden + int64_t{outputs.num_targets} * config.hidden_size);
}

}  // namespace medusa
