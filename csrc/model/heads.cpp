#include "model/heads.h"

#include <algorithm>

namespace medusa {
namespace {

int64_t activation_bytes(const Backend& backend, const PackedMatrix& weight, int32_t num_rows) {
  const KernelTable& kernels = *backend.kernels;
  return kernels.activation_bytes(kernels.activation_format(weight.format), num_rows,
                                  weight.num_inputs);
}

}  // namespace

const PackedMatrix& Heads::lm_head(int32_t k) const {
  if (lm_heads.empty()) return model->lm_head();
  return lm_heads[lm_heads.size() == 1 ? 0 : static_cast<size_t>(k)].packed;
}

int64_t Heads::packed_bytes() const {
  int64_t bytes = first_block.packed.bytes + 4 * (first_bias.size() + block_bias.size());
  for (const Matrix& matrix : blocks) bytes += matrix.packed.bytes;
  for (const Matrix& matrix : lm_heads) bytes += matrix.packed.bytes;
  return bytes + 4 * token_map.size();
}

HeadsRunner::HeadsRunner(const Heads& heads, int32_t max_sequences)
    : heads_(heads), backend_(heads.model->backend()) {
  const int64_t width = heads.model->config().hidden_size;
  const int64_t rows = int64_t{max_sequences} * heads.config.num_heads;
  root_embedding_ = DeviceArray<float>(backend_, max_sequences * width);
  inputs_ = DeviceArray<float>(backend_, int64_t{max_sequences} * heads.input_width());
  blocks_ = DeviceArray<float>(backend_, rows * width);
  logits_ = DeviceArray<float>(backend_, rows * heads.config.draft_vocab_size);
  int64_t bytes = activation_bytes(backend_, heads.first_block.packed, max_sequences);
  bytes = std::max(bytes, activation_bytes(backend_, heads.lm_head(0), static_cast<int32_t>(rows)));
  for (const Matrix& block : heads.blocks) {
    bytes = std::max(bytes, activation_bytes(backend_, block.packed, 1));
  }
  activations_ = DeviceArray<uint8_t>(backend_, bytes);
  node_depths_ = DeviceArray<int32_t>(backend_, 1);
  node_tokens_ = DeviceArray<int32_t>(backend_, max_sequences);
  top_ids_ = DeviceArray<int32_t>(backend_, rows * kMaxHeadRanks);
  top_log_probs_ = DeviceArray<float>(backend_, rows * kMaxHeadRanks);
  const int32_t root_depth = 0;
  const std::unique_ptr<Context> context = backend_.make_context();
  backend_.copy_in(*context, node_depths_.data(), &root_depth, sizeof root_depth);
  backend_.synchronize(*context);
}

void HeadsRunner::run(Context& context, int32_t num_sequences, const float* hidden,
                      const int32_t* slots, const int32_t* roots, int32_t top_k) {
  const KernelTable& kernels = *backend_.kernels;
  const HeadsConfig& config = heads_.config;
  if (config.root_conditioned) {
    EmbedParams embed;
    embed.num_rows = num_sequences;
    embed.tokens = roots;
    embed.table = &heads_.model->embedding.packed;
    embed.out = root_embedding_.data();
    kernels.embed(context, embed);
  }
  HeadInputsParams inputs;
  inputs.num_sequences = num_sequences;
  inputs.num_heads = config.num_heads;
  inputs.width = heads_.model->config().hidden_size;
  inputs.hidden = hidden;
  inputs.slots = slots;
  inputs.root_embedding = config.root_conditioned ? root_embedding_.data() : nullptr;
  inputs.inputs = inputs_.data();
  inputs.blocks = blocks_.data();
  kernels.head_inputs(context, inputs);
  apply_blocks(context, num_sequences);
  apply_lm_heads(context, num_sequences);

  CandidatesParams candidates;
  candidates.num_sequences = num_sequences;
  candidates.num_heads = config.num_heads;
  candidates.width = config.draft_vocab_size;
  candidates.top_k = top_k;
  candidates.num_nodes = 1;
  candidates.logits = logits_.data();
  candidates.token_map = heads_.token_map.size() > 0 ? heads_.token_map.data() : nullptr;
  candidates.roots = roots;
  candidates.depths = node_depths_.data();
  candidates.ranks = node_depths_.data();
  candidates.top_ids = top_ids_.data();
  candidates.top_log_probs = top_log_probs_.data();
  candidates.tokens = node_tokens_.data();
  kernels.candidates(context, candidates);
}

Activations HeadsRunner::quantized(Context& context, const PackedMatrix& weight, const float* x,
                                   int32_t num_rows, int32_t width) {
  QuantizeParams params;
  params.num_rows = num_rows;
  params.width = width;
  params.x = x;
  params.out.format = backend_.kernels->activation_format(weight.format);
  params.out.width = width;
  params.out.data = activations_.data();
  backend_.kernels->quantize(context, params);
  return params.out;
}

void HeadsRunner::apply_blocks(Context& context, int32_t num_sequences) {
  const int32_t width = heads_.model->config().hidden_size;
  const int32_t num_heads = heads_.config.num_heads;
  LinearParams linear;
  linear.epilogue = Epilogue::kSiluAdd;
  linear.num_rows = num_sequences;
  linear.weight = &heads_.first_block.packed;
  linear.in =
      quantized(context, *linear.weight, inputs_.data(), num_sequences, heads_.input_width());
  linear.bias = heads_.first_bias.data();
  linear.out = blocks_.data();
  linear.out_stride = int64_t{num_heads} * width;
  backend_.kernels->linear(context, linear);

  // Deeper blocks differ per head and are rare (published heads have one): row by row.
  linear.num_rows = 1;
  linear.out_stride = width;
  for (size_t i = 0; i < heads_.blocks.size(); ++i) {
    const int32_t k = static_cast<int32_t>(i) % num_heads;
    linear.weight = &heads_.blocks[i].packed;
    linear.bias = heads_.block_bias.data() + static_cast<int64_t>(i) * width;
    for (int32_t b = 0; b < num_sequences; ++b) {
      linear.out = blocks_.data() + (int64_t{b} * num_heads + k) * width;
      linear.in = quantized(context, *linear.weight, linear.out, 1, width);
      backend_.kernels->linear(context, linear);
    }
  }
}

void HeadsRunner::apply_lm_heads(Context& context, int32_t num_sequences) {
  const int32_t width = heads_.model->config().hidden_size;
  const int32_t num_heads = heads_.config.num_heads;
  const int64_t vocab = heads_.config.draft_vocab_size;
  LinearParams linear;
  linear.out_stride = vocab;
  const bool own = heads_.lm_heads.size() > 1;
  // A shared lm_head takes all rows at once; own ones take their row of each sequence.
  const int32_t rows_per_product = own ? 1 : num_sequences * num_heads;
  for (int32_t row = 0; row < num_sequences * num_heads; row += rows_per_product) {
    linear.num_rows = rows_per_product;
    linear.weight = &heads_.lm_head(row % num_heads);
    linear.in = quantized(context, *linear.weight, blocks_.data() + int64_t{row} * width,
                          rows_per_product, width);
    linear.out = logits_.data() + row * vocab;
    backend_.kernels->linear(context, linear);
  }
}

}  // namespace medusa
