// Packing weights tensor by tensor, by name, with a check that nothing is missing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "model/heads.h"
#include "model/model.h"

namespace medusa {

using Formats = std::map<std::string, WeightFormat>;

/// The named places that a loader fills: matrices by rows, vectors at once. Every fault is a
/// std::invalid_argument naming the tensor, what it needs and what it got.
class WeightSlots {
 public:
  /// Rows first_output … first_output + num_outputs - 1 of `matrix`.
  struct MatrixSlot {
    PackedMatrix* matrix = nullptr;
    int32_t first_output = 0;
    int32_t num_outputs = 0;
    int32_t rows_set = 0;
  };
  struct VectorSlot {
    float* data = nullptr;
    int64_t size = 0;
    bool set = false;
  };

  explicit WeightSlots(Backend backend) : backend_(std::move(backend)) {}

  void add_matrix(const std::string& name, PackedMatrix* matrix, int32_t first_output,
                  int32_t num_outputs);
  void add_vector(const std::string& name, float* data, int64_t size);

  /// Rows must come in order, so that a half-filled matrix is known.
  void set_rows(const std::string& name, int32_t first_row, SourceType type, const void* data,
                int32_t num_rows, int64_t row_bytes);
  void set_vector(const std::string& name, const float* data, int64_t size);
  void check_complete(const char* what) const;

 private:
  Backend backend_;
  std::unique_ptr<Context> context_;  // of the vectors' copies; made at the first
  std::map<std::string, MatrixSlot> matrices_;
  std::map<std::string, VectorSlot> vectors_;
};

/// Memory for the matrices of one model, side by side in large chunks: all of it may then be in
/// huge pages, which plain decoding, a stream through every weight, is faster for. A chunk is freed
/// with the last matrix in it.
class WeightArena {
 public:
  explicit WeightArena(Backend backend) : backend_(std::move(backend)) {}

  /// A matrix of `format`, contents undefined.
  Matrix make_matrix(const WeightFormat& format, int32_t num_outputs, int32_t num_inputs);

 private:
  static constexpr int64_t kChunkBytes = int64_t{64} << 20;
  static constexpr int64_t kAlignment = 256;

  Storage allocate(int64_t bytes);

  Backend backend_;
  Storage chunk_;
  int64_t used_ = 0;
};

class ModelBuilder {
 public:
  /// `formats` names every matrix: embed, lm_head (untied), layers.{i}.{q,k,v,o,gate,up,down}.
  ModelBuilder(ModelConfig config, const Formats& formats, Backend backend);

  WeightSlots& slots() { return slots_; }
  std::shared_ptr<Model> finish();

 private:
  void add_layer(const Formats& formats, int32_t index);
  void add_attention(const Formats& formats, const std::string& prefix, const LayerSpec& spec,
                     LayerWeights& layer);

  std::shared_ptr<Model> model_;
  WeightSlots slots_;
  WeightArena arena_;
};

class HeadsBuilder {
 public:
  /// Slots: `{k}.0.weight` [H, H] (root-conditioned: [H, 2H], W beside E), `{k}.{l}.weight`
  /// [H, H], `{k}.{l}.bias` [H], and `lm_head` or `{k}.lm_head` [V', H] as the config says.
  HeadsBuilder(std::shared_ptr<const Model> model, HeadsConfig config,
               const WeightFormat& block_format, const WeightFormat& lm_head_format);

  WeightSlots& slots() { return slots_; }
  std::shared_ptr<Heads> finish();

 private:
  std::shared_ptr<Heads> heads_;
  WeightSlots slots_;
  WeightArena arena_;
};

}  // namespace medusa
