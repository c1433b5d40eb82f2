// The step at hand: who takes part, its rows, the buffers of its forward, and the pieces of work
// that an executor puts together.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "engine/cache_pages.h"
#include "engine/end_tokens.h"
#include "engine/sampler.h"
#include "engine/sequence.h"
#include "engine/step_ring.h"
#include "engine/step_rows.h"
#include "model/decoder.h"

namespace medusa {

/// Rows of a prompt that one forward takes: enough for the arithmetic limit, small enough for its
/// buffers.
constexpr int32_t kChunkRows = 512;

/// What a session has room for.
struct SessionSizes {
  int32_t batch = 0;
  int32_t max_length = 0;
  int32_t max_nodes = 0;  // of a tree, padding included
};

class Step {
 public:
  Step(std::shared_ptr<const Model> model, Context& context, const SessionSizes& sizes,
       DType kv_dtype, int64_t kv_memory);

  const Model& model() const { return *model_; }
  Context& context() const { return *context_; }
  const SessionSizes& sizes() const { return sizes_; }
  CachePages& cache() { return cache_; }
  const CachePages& cache() const { return cache_; }
  void set_end_tokens(int32_t slot, std::vector<int32_t> tokens);
  /// Called between the layers of every forward; what it throws ends the forward.
  void set_interrupt(ForwardObserver check) { interrupt_ = std::move(check); }
  const DeviceArray<float>& last_hidden() const { return last_hidden_; }

  // ---- setting out
  /// The sequences of the step, each with its chunk and tree.
  void begin(const std::vector<Sequence*>& sequences);
  bool has_chunks() const;
  const std::vector<Sequence*>& trees() const { return trees_; }  // the sequences that have one
  bool wants_logits() const;
  /// The rows as they are, trees first.
  void add_rows();
  /// Trees whose heads' tokens are found by the step itself, in `num_nodes` rows each.
  void add_padded_trees(int32_t num_nodes);

  // ---- pieces of work, in their order
  StepRows& rows() { return rows_; }
  RowTable upload();
  void forward(const RowTable& table);
  void accept();
  /// A new entry for the results, before `finish`.
  void begin_results() { ring_.begin(); }
  /// Results for the host, the cache's rows, the next hidden states.
  void finish();

  /// Waits for the results and hands them to the sequences.
  void take_results();
  /// Where a sequence's numbers stop being finite, once its results have failed for that: a search
  /// over its whole text, which loses the step's rows.
  std::string failure(const Sequence& s);

  /// Changes when memory of recorded work has moved, or of work that stores logits.
  int64_t version() const { return version_; }
  int64_t logits_version() const { return logits_version_; }

  // ---- views: rows of the last forward, copied to the host
  void copy_path_hidden(const Sequence& s, float* out);
  void copy_logits(const Sequence& s, int32_t node, float* out);

 private:
  void allocate_rows();
  void reserve_rows(int32_t num_rows);
  void reserve_logits();
  int32_t num_tree_rows() const { return rows_.first_row(num_trees()); }
  int32_t num_trees() const { return static_cast<int32_t>(trees_.size()); }
  void publish();
  void compact();
  void keep_last_hidden();
  void copy_rows(float* out, const float* rows, int64_t num_floats);

  std::shared_ptr<const Model> model_;
  Context* context_;
  SessionSizes sizes_;
  Decoder decoder_;
  CachePages cache_;
  StepRows rows_;
  Sampler sampler_;
  StepRing ring_;
  EndTokens end_tokens_;
  ForwardObserver interrupt_;
  std::vector<Sequence*> sequences_;
  std::vector<Sequence*> trees_;
  bool is_uploading_ = false;  // the device may still read what is on the host
  int64_t version_ = 0;
  int64_t logits_version_ = 0;
  DeviceArray<float> hidden_;       // [R, H] of the last forward
  DeviceArray<float> last_hidden_;  // [B, H] of each sequence's last accepted node
  DeviceArray<float> logits_;       // [rows of trees, V] of the last forward that stored them
};

}  // namespace medusa
