#include "model/builder.h"

#include <cstring>
#include <stdexcept>
#include <utility>

#include "core/checks.h"
#include "core/profiled_table.h"
#include "model/weight_check.h"

namespace medusa {
namespace {

WeightFormat format_of(const Formats& formats, const std::string& name) {
  const auto found = formats.find(name);
  if (found == formats.end()) fail("formats", "an entry for " + name, "none");
  return found->second;
}

void check_supported(const Backend& backend, const std::string& argument,
                     const WeightFormat& format) {
  if (backend.kernels->supports(format)) return;
  std::string known;
  for (const std::string& name : supported_formats(*backend.kernels)) {
    known += (known.empty() ? "" : ", ") + name;
  }
  fail(argument, "one of " + known + " (" + backend.kernels->name + ")",
       weight_format_name(format));
}

/// Rows q, k, v of one layer go into one product when they share a format.
struct Piece {
  const char* name;
  int32_t num_outputs;
};

}  // namespace

Storage WeightArena::allocate(int64_t bytes) {
  const int64_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (size > kChunkBytes / 2) return backend_.allocate(bytes);
  if (!chunk_ || used_ + size > kChunkBytes) {
    chunk_ = backend_.allocate(kChunkBytes);
    used_ = 0;
  }
  const Storage piece(chunk_, static_cast<uint8_t*>(chunk_.get()) + used_);
  used_ += size;
  return piece;
}

Matrix WeightArena::make_matrix(const WeightFormat& format, int32_t num_outputs,
                                int32_t num_inputs) {
  Matrix matrix;
  matrix.packed.format = format;
  matrix.packed.num_outputs = num_outputs;
  matrix.packed.num_inputs = num_inputs;
  matrix.packed.bytes = backend_.kernels->packed_bytes(format, num_outputs, num_inputs);
  matrix.storage = allocate(matrix.packed.bytes);
  matrix.packed.data = matrix.storage.get();
  return matrix;
}

void WeightSlots::add_matrix(const std::string& name, PackedMatrix* matrix, int32_t first_output,
                             int32_t num_outputs) {
  MatrixSlot slot;
  slot.matrix = matrix;
  slot.first_output = first_output;
  slot.num_outputs = num_outputs;
  matrices_[name] = slot;
}

void WeightSlots::add_vector(const std::string& name, float* data, int64_t size) {
  VectorSlot slot;
  slot.data = data;
  slot.size = size;
  vectors_[name] = slot;
}

void WeightSlots::set_rows(const std::string& name, int32_t first_row, SourceType type,
                           const void* data, int32_t num_rows, int64_t row_bytes) {
  const auto found = matrices_.find(name);
  if (found == matrices_.end()) fail(name, "the name of a matrix of this model", "an unknown name");
  MatrixSlot& slot = found->second;
  const int64_t need_bytes = source_row_bytes(type, slot.matrix->num_inputs);
  if (row_bytes != need_bytes) {
    fail(name, "rows of " + std::to_string(need_bytes) + " bytes", std::to_string(row_bytes));
  }
  if (first_row != slot.rows_set || num_rows < 1 || num_rows > slot.num_outputs - first_row) {
    fail(
        name,
        "rows from " + std::to_string(slot.rows_set) + " up to " + std::to_string(slot.num_outputs),
        std::to_string(num_rows) + " rows from " + std::to_string(first_row));
  }
  check_weights(name, slot.matrix->format, type, data, num_rows, slot.matrix->num_inputs, row_bytes,
                first_row);
  PackParams params;
  params.matrix = slot.matrix;
  params.source_type = type;
  params.source = data;
  params.source_stride = row_bytes;
  params.first_output = slot.first_output + first_row;
  params.num_rows = num_rows;
  backend_.kernels->pack(params);
  slot.rows_set += num_rows;
}

void WeightSlots::set_vector(const std::string& name, const float* data, int64_t size) {
  const auto found = vectors_.find(name);
  if (found == vectors_.end()) fail(name, "the name of a vector of this model", "an unknown name");
  VectorSlot& slot = found->second;
  if (size != slot.size) {
    fail(name, std::to_string(slot.size) + " numbers", std::to_string(size));
  }
  check_numbers(name, data, size);
  if (!context_) context_ = backend_.make_context();
  context_->activate();
  backend_.copy_in(*context_, slot.data, data, size * static_cast<int64_t>(sizeof(float)));
  backend_.synchronize(*context_);
  slot.set = true;
}

void WeightSlots::check_complete(const char* what) const {
  std::string missing;
  for (const auto& [name, slot] : matrices_) {
    if (slot.rows_set == slot.num_outputs) continue;
    missing += " " + name + " (" + std::to_string(slot.rows_set) + " of " +
               std::to_string(slot.num_outputs) + " rows)";
  }
  for (const auto& [name, slot] : vectors_) {
    if (!slot.set) missing += " " + name;
  }
  if (!missing.empty()) throw std::invalid_argument(std::string(what) + ": missing" + missing);
}

ModelBuilder::ModelBuilder(ModelConfig config, const Formats& formats, Backend backend)
    : slots_(backend), arena_(backend) {
  check_config(config);
  for (const auto& [name, format] : formats) check_supported(backend, "formats: " + name, format);
  backend.kernels = &profiled_table(*backend.kernels);
  model_ = std::make_shared<Model>(std::move(config), std::move(backend));
  const ModelConfig& shape = model_->config();
  model_->embedding =
      arena_.make_matrix(format_of(formats, "embed"), shape.vocab_size, shape.hidden_size);
  slots_.add_matrix("embed", &model_->embedding.packed, 0, shape.vocab_size);
  if (!shape.tied_embeddings) {
    model_->untied_lm_head =
        arena_.make_matrix(format_of(formats, "lm_head"), shape.vocab_size, shape.hidden_size);
    slots_.add_matrix("lm_head", &model_->untied_lm_head.packed, 0, shape.vocab_size);
  }
  model_->final_norm = DeviceArray<float>(model_->backend(), shape.hidden_size);
  slots_.add_vector("final_norm", model_->final_norm.data(), shape.hidden_size);
  for (int32_t i = 0; i < shape.num_layers(); ++i) add_layer(formats, i);
}

void ModelBuilder::add_layer(const Formats& formats, int32_t index) {
  const ModelConfig& shape = model_->config();
  const Backend& backend = model_->backend();
  const std::string prefix = "layers." + std::to_string(index) + ".";
  LayerWeights& layer = model_->layers[static_cast<size_t>(index)];
  const LayerSpec& spec = shape.layers[static_cast<size_t>(index)];
  const auto vector = [&](const char* name, DeviceArray<float>& array, int64_t size) {
    array = DeviceArray<float>(backend, size);
    slots_.add_vector(prefix + name, array.data(), size);
  };
  if (spec.pre_norm) {
    vector("attn_norm", layer.attn_norm, shape.hidden_size);
    vector("ffn_norm", layer.ffn_norm, shape.hidden_size);
  }
  if (spec.post_norm) {
    vector("attn_post_norm", layer.attn_post_norm, shape.hidden_size);
    vector("ffn_post_norm", layer.ffn_post_norm, shape.hidden_size);
  }
  if (spec.qk_norm) {
    vector("q_norm", layer.q_norm, shape.head_size);
    vector("k_norm", layer.k_norm, shape.head_size);
  }
  add_attention(formats, prefix, spec, layer);
  layer.o =
      arena_.make_matrix(format_of(formats, prefix + "o"), shape.hidden_size, shape.q_width());
  slots_.add_matrix(prefix + "o", &layer.o.packed, 0, shape.hidden_size);
  const WeightFormat ffn_format = format_of(formats, prefix + "gate");
  if (format_of(formats, prefix + "up") != ffn_format) {
    fail(prefix + "up", std::string("the format of gate, ") + weight_format_name(ffn_format),
         weight_format_name(format_of(formats, prefix + "up")));
  }
  layer.gate_up = arena_.make_matrix(ffn_format, 2 * shape.ffn_size, shape.hidden_size);
  layer.gate_up.packed.is_gate_up = true;
  slots_.add_matrix(prefix + "gate", &layer.gate_up.packed, 0, shape.ffn_size);
  slots_.add_matrix(prefix + "up", &layer.gate_up.packed, shape.ffn_size, shape.ffn_size);
  layer.down =
      arena_.make_matrix(format_of(formats, prefix + "down"), shape.hidden_size, shape.ffn_size);
  slots_.add_matrix(prefix + "down", &layer.down.packed, 0, shape.hidden_size);
}

void ModelBuilder::add_attention(const Formats& formats, const std::string& prefix,
                                 const LayerSpec& spec, LayerWeights& layer) {
  const ModelConfig& shape = model_->config();
  const Backend& backend = model_->backend();
  const Piece pieces[] = {{"q", shape.q_width()}, {"k", shape.kv_width()}, {"v", shape.kv_width()}};
  const WeightFormat format = format_of(formats, prefix + "q");
  const bool fused =
      format_of(formats, prefix + "k") == format && format_of(formats, prefix + "v") == format;
  // Slots point into the parts: reserve, so that they never move.
  layer.qkv.reserve(3);
  if (fused) {
    MatrixPart part;
    part.matrix = arena_.make_matrix(format, shape.qkv_width(), shape.hidden_size);
    layer.qkv.push_back(std::move(part));
  }
  if (spec.qkv_bias) layer.qkv_bias = DeviceArray<float>(backend, shape.qkv_width());
  int32_t column = 0;
  for (const Piece& piece : pieces) {
    if (fused) {
      slots_.add_matrix(prefix + piece.name, &layer.qkv[0].matrix.packed, column,
                        piece.num_outputs);
    } else {
      MatrixPart part;
      part.column = column;
      part.matrix = arena_.make_matrix(format_of(formats, prefix + piece.name), piece.num_outputs,
                                       shape.hidden_size);
      layer.qkv.push_back(std::move(part));
      slots_.add_matrix(prefix + piece.name, &layer.qkv.back().matrix.packed, 0, piece.num_outputs);
    }
    if (spec.qkv_bias) {
      slots_.add_vector(prefix + piece.name + "_bias", layer.qkv_bias.data() + column,
                        piece.num_outputs);
    }
    column += piece.num_outputs;
  }
}

std::shared_ptr<Model> ModelBuilder::finish() {
  slots_.check_complete("model");
  return std::exchange(model_, nullptr);
}

HeadsBuilder::HeadsBuilder(std::shared_ptr<const Model> model, HeadsConfig config,
                           const WeightFormat& block_format, const WeightFormat& lm_head_format)
    : slots_(model->backend()), arena_(model->backend()) {
  check_supported(model->backend(), "block_format", block_format);
  check_supported(model->backend(), "lm_head_format", lm_head_format);
  if (config.num_heads < 1) fail("num_heads", "at least 1", std::to_string(config.num_heads));
  if (config.num_layers < 1) fail("num_layers", "at least 1", std::to_string(config.num_layers));
  const int32_t vocab = model->config().vocab_size;
  for (int32_t id : config.token_map) {
    if (id < 0 || id >= vocab) {
      fail("token_map", "ids from 0 to " + std::to_string(vocab - 1), std::to_string(id));
    }
  }
  config.draft_vocab_size =
      config.token_map.empty() ? vocab : static_cast<int32_t>(config.token_map.size());
  if (config.lm_head == HeadsConfig::LmHead::kBase && !config.token_map.empty()) {
    fail("lm_head", "rows for the draft vocabulary", "none (the base's covers the full one)");
  }
  heads_ = std::make_shared<Heads>(std::move(model), std::move(config));
  Heads& heads = *heads_;
  const Backend& backend = heads.model->backend();
  const int32_t width = heads.model->config().hidden_size;
  const int32_t num_heads = heads.config.num_heads;
  const int32_t deeper = heads.config.num_layers - 1;
  heads.first_block = arena_.make_matrix(block_format, num_heads * width, heads.input_width());
  heads.first_bias = DeviceArray<float>(backend, int64_t{num_heads} * width);
  heads.block_bias = DeviceArray<float>(backend, int64_t{deeper} * num_heads * width);
  heads.blocks.reserve(static_cast<size_t>(deeper * num_heads));
  for (int32_t k = 0; k < num_heads; ++k) {
    const std::string prefix = std::to_string(k) + ".";
    slots_.add_matrix(prefix + "0.weight", &heads.first_block.packed, k * width, width);
    slots_.add_vector(prefix + "0.bias", heads.first_bias.data() + int64_t{k} * width, width);
  }
  for (int32_t layer = 1; layer <= deeper; ++layer) {
    for (int32_t k = 0; k < num_heads; ++k) {
      const std::string prefix = std::to_string(k) + "." + std::to_string(layer) + ".";
      heads.blocks.push_back(arena_.make_matrix(block_format, width, width));
      slots_.add_matrix(prefix + "weight", &heads.blocks.back().packed, 0, width);
      slots_.add_vector(prefix + "bias",
                        heads.block_bias.data() + (int64_t{layer - 1} * num_heads + k) * width,
                        width);
    }
  }
  const bool own = heads.config.lm_head == HeadsConfig::LmHead::kOwn;
  const int32_t num_lm_heads =
      own ? num_heads : (heads.config.lm_head == HeadsConfig::LmHead::kShared ? 1 : 0);
  heads.lm_heads.reserve(static_cast<size_t>(num_lm_heads));
  for (int32_t i = 0; i < num_lm_heads; ++i) {
    heads.lm_heads.push_back(
        arena_.make_matrix(lm_head_format, heads.config.draft_vocab_size, width));
    slots_.add_matrix(own ? std::to_string(i) + ".lm_head" : "lm_head",
                      &heads.lm_heads.back().packed, 0, heads.config.draft_vocab_size);
  }
  if (!heads.config.token_map.empty()) {
    const int64_t size = heads.config.draft_vocab_size;
    heads.token_map = DeviceArray<int32_t>(backend, size);
    const std::unique_ptr<Context> context = backend.make_context();
    backend.copy_in(*context, heads.token_map.data(), heads.config.token_map.data(),
                    size * static_cast<int64_t>(sizeof(int32_t)));
    backend.synchronize(*context);
  }
}

std::shared_ptr<Heads> HeadsBuilder::finish() {
  slots_.check_complete("heads");
  return std::exchange(heads_, nullptr);
}

}  // namespace medusa
