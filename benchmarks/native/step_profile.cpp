// Where the time of a forward goes: the decoder over a kernel table that times its entries.
//
// Compiled at run time and linked with the objects of the extension's torch-free layers.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "cpu/runtime/backend.h"
#include "cpu/runtime/context.h"
#include "engine/kv_cache.h"
#include "model/builder.h"
#include "model/decoder.h"

namespace medusa {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// One profile at a time: a kernel table has no place for a pointer to it.
struct Profile {
  KernelTable original;
  double linear = 0, attention = 0;
  double cached_linear = 0, cached_operations = 0;
};
Profile profile;

/// Weights up to here are still in some cache when a product has just read them.
constexpr int64_t kCachedBytes = int64_t{8} << 20;

/// A second run finds the weights in the caches, which leaves the arithmetic. Not so where SiLU is
/// part of the product. Where a product adds to its output it adds twice; what the values are does
/// not change the time.
void timed_linear(Context& context, const LinearParams& params) {
  const Clock::time_point start = Clock::now();
  profile.original.linear(context, params);
  profile.linear += seconds_since(start);
  const PackedMatrix& weight = *params.weight;
  if (weight.bytes > kCachedBytes || params.epilogue == Epilogue::kSiluMul) return;
  const Clock::time_point again = Clock::now();
  profile.original.linear(context, params);
  profile.cached_linear += seconds_since(again);
  profile.cached_operations += 2.0 * params.num_rows * weight.num_outputs * weight.num_inputs;
}

void timed_attention(Context& context, const TreeAttentionParams& params) {
  const Clock::time_point start = Clock::now();
  profile.original.tree_attention(context, params);
  profile.attention += seconds_since(start);
}

struct Shape {
  int32_t layers, hidden, query_heads, kv_heads, head_size, ffn, vocab;
};

ModelConfig config_of(const Shape& shape) {
  ModelConfig config;
  config.hidden_size = shape.hidden;
  config.num_query_heads = shape.query_heads;
  config.num_kv_heads = shape.kv_heads;
  config.head_size = shape.head_size;
  config.ffn_size = shape.ffn;
  config.vocab_size = shape.vocab;
  config.tied_embeddings = true;
  config.inverse_frequencies = {
      std::vector<double>(static_cast<size_t>(shape.head_size / 2), 0.01)};
  config.layers.resize(static_cast<size_t>(shape.layers));
  return config;
}

/// The same few rows in every matrix: what the weights are does not change the time.
void fill(WeightSlots& slots, const std::string& name, int32_t outputs, int32_t inputs) {
  constexpr int32_t kRows = 64;
  std::vector<float> rows(static_cast<size_t>(kRows) * static_cast<size_t>(inputs));
  for (size_t i = 0; i < rows.size(); ++i)
    rows[i] = 1e-3f * (static_cast<float>(i * 37 % 101) - 50);
  for (int32_t n = 0; n < outputs; n += kRows) {
    slots.set_rows(name, n, SourceType::kFloat32, rows.data(), std::min(kRows, outputs - n),
                   int64_t{inputs} * 4);
  }
}

std::shared_ptr<Model> make_model(const Shape& shape, const WeightFormat& format,
                                  const WeightFormat& vocabulary_format, const Backend& backend) {
  const ModelConfig config = config_of(shape);
  struct Piece {
    const char* name;
    int32_t outputs, inputs;
  };
  const Piece pieces[] = {
      {"q", config.q_width(), shape.hidden},  {"k", config.kv_width(), shape.hidden},
      {"v", config.kv_width(), shape.hidden}, {"o", shape.hidden, config.q_width()},
      {"gate", shape.ffn, shape.hidden},      {"up", shape.ffn, shape.hidden},
      {"down", shape.hidden, shape.ffn}};
  Formats formats = {{"embed", vocabulary_format}};
  const auto prefix = [](int32_t layer) { return "layers." + std::to_string(layer) + "."; };
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    for (const Piece& piece : pieces) formats[prefix(layer) + piece.name] = format;
  }
  ModelBuilder builder(config, formats, backend);
  WeightSlots& slots = builder.slots();
  const std::vector<float> norm(static_cast<size_t>(shape.hidden), 1.0f);
  fill(slots, "embed", shape.vocab, shape.hidden);
  slots.set_vector("final_norm", norm.data(), shape.hidden);
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    for (const Piece& piece : pieces) {
      fill(slots, prefix(layer) + piece.name, piece.outputs, piece.inputs);
    }
    slots.set_vector(prefix(layer) + "attn_norm", norm.data(), shape.hidden);
    slots.set_vector(prefix(layer) + "ffn_norm", norm.data(), shape.hidden);
  }
  return builder.finish();
}

/// `rows` nodes of a chain behind `length` cached ones.
struct ChainRows {
  ChainRows(int32_t rows, int32_t length)
      : tokens(static_cast<size_t>(rows), 1),
        sequences(static_cast<size_t>(rows), 0),
        positions(static_cast<size_t>(rows)),
        nodes(static_cast<size_t>(rows)),
        first_rows{0, rows},
        lengths{length} {
    for (int32_t i = 0; i < rows; ++i) {
      nodes[static_cast<size_t>(i)] = i;
      positions[static_cast<size_t>(i)] = length + i;
    }
    table.num_rows = rows;
    table.num_sequences = 1;
    table.tokens = tokens.data();
    table.sequences = sequences.data();
    table.positions = positions.data();
    table.nodes = nodes.data();
    table.first_rows = first_rows.data();
    table.cache_slots = slots.data();
    table.lengths = lengths.data();
  }

  std::vector<int32_t> tokens, sequences, positions, nodes, first_rows, lengths;
  std::vector<int32_t> slots = {0};
  RowTable table;
};

constexpr int32_t kFigures = 5;

void run(const std::string& isa, const Shape& shape, const WeightFormat& format,
         const WeightFormat& vocabulary_format, int32_t threads, int32_t length,
         const int32_t* row_counts, int32_t num_counts, int32_t repeats, double* out) {
  Backend backend = cpu::make_backend(isa);
  profile.original = *backend.kernels;
  KernelTable timed = *backend.kernels;
  timed.linear = timed_linear;
  timed.tree_attention = timed_attention;
  backend.kernels = &timed;
  const std::shared_ptr<Model> model = make_model(shape, format, vocabulary_format, backend);
  const int32_t max_rows = *std::max_element(row_counts, row_counts + num_counts);
  Decoder decoder(model, max_rows, length + max_rows);
  const KvCacheStorage cache(*model, DType::kFloat32, 1, length + max_rows);
  cpu::CpuContext context(threads);
  std::vector<int32_t> targets(static_cast<size_t>(max_rows));
  for (int32_t repeat = -1; repeat < repeats; ++repeat) {  // the first warms up
    for (int32_t i = 0; i < num_counts; ++i) {
      const ChainRows rows(row_counts[i], length);
      ForwardOutputs outputs;
      outputs.num_targets = row_counts[i];
      outputs.targets = targets.data();
      profile.linear = profile.attention = profile.cached_linear = profile.cached_operations = 0;
      const Clock::time_point start = Clock::now();
      decoder.forward(context, rows.table, cache.layers(), outputs);
      const double total = seconds_since(start) - profile.cached_linear;
      if (repeat < 0) continue;
      double* result = out + (repeat * num_counts + i) * kFigures;
      result[0] = total;
      result[1] = profile.linear;
      result[2] = profile.attention;
      result[3] = profile.cached_linear;
      result[4] = profile.cached_operations;
    }
  }
}

}  // namespace
}  // namespace medusa

/// out[repeats][num_counts][5]: seconds of a whole forward of row_counts[i] rows, of its matrix
/// products, of its attention, of the plain products of its layers with the weights in the
/// caches, and the operations of these. Formats are indices of kWeightFormats. 0, or 1 with a
/// message.
extern "C" __attribute__((visibility("default"))) int32_t medusa_step_profile(
    const char* isa, const int32_t* shape, int32_t format, int32_t vocabulary_format,
    int32_t threads, int32_t length, const int32_t* row_counts, int32_t num_counts, int32_t repeats,
    double* out, char* message, int64_t message_bytes) {
  try {
    const medusa::Shape sizes = {shape[0], shape[1], shape[2], shape[3],
                                 shape[4], shape[5], shape[6]};
    medusa::run(isa, sizes, medusa::kWeightFormats[format].format,
                medusa::kWeightFormats[vocabulary_format].format, threads, length, row_counts,
                num_counts, repeats, out);
    return 0;
  } catch (const std::exception& error) {
    std::snprintf(message, static_cast<size_t>(message_bytes), "%s", error.what());
    return 1;
  }
}
