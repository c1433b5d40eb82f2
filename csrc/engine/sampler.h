// How a step's trees become tokens: targets, acceptance, and the rules of both.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "engine/sequence.h"
#include "engine/step_rows.h"

namespace medusa {

/// What the rules of a step's sequences ask for: the kernels that accept it.
struct SamplingKinds {
  bool greedy = false;   // some accept drafts that are the arg-max
  bool drawn = false;    // some accept drafts that are drawn
  bool typical = false;  // some accept typical drafts
  bool filters = false;  // some that draw have a top_k or a top_p

  bool operator<(const SamplingKinds& other) const { return key() < other.key(); }

 private:
  int key() const { return greedy + 2 * drawn + 4 * typical + 8 * filters; }
};

/// A rule whose numbers are in range; std::invalid_argument names the one that is not.
SamplingRule checked_rule(const SamplingRule& rule, int32_t vocab_size);

class Sampler {
 public:
  Sampler() = default;
  Sampler(const Backend& backend, int32_t vocab_size, int32_t max_sequences, int32_t max_nodes);

  static SamplingKinds kinds(const std::vector<Sequence*>& sequences);

  /// Takes down, on the host, the rules of the sequences whose trees are the first of `rows`: what
  /// changes afterwards holds from the next step on. `sequences` stays in use until `accept`.
  void begin(const StepRows& rows, const std::vector<Sequence*>& sequences);
  /// Finds path, count and next root of each tree. `logits`, [rows, V], may be null where all are
  /// greedy; `targets` then are the arg-maxima.
  void accept(Context& context, const StepRows& rows, const float* logits);

  int32_t* targets() const { return targets_.data(); }      // [rows], filled by the forward
  int32_t* path() const { return path_.data(); }            // [B', P]
  int32_t* count() const { return count_.data(); }          // [B']
  int32_t* next_root() const { return next_root_.data(); }  // [B']

 private:
  void add_row_keys(const StepRows& rows, int32_t i, const Sequence& sequence);
  AcceptParams accept_params(const StepRows& rows) const;
  void accept_typical(Context& context, const StepRows& rows, const float* logits);
  void sample_rows(Context& context, const StepRows& rows, const float* logits);
  void walk_and_sample(Context& context, const StepRows& rows, const float* logits);
  int32_t sample_row(Context& context, const float* logits, int32_t i, int32_t position);

  const Backend* backend_ = nullptr;
  int32_t vocab_size_ = 0;
  int32_t max_nodes_ = 0;
  const std::vector<Sequence*>* sequences_ = nullptr;  // of the step
  SamplingKinds kinds_;                                // of the step
  DeviceArray<int32_t> targets_;
  DeviceArray<int32_t> path_, count_, next_root_;
  UploadArray<SamplingRule> rules_;      // [B']
  UploadArray<uint64_t> seeds_;          // [B']
  UploadArray<SamplingRule> row_rules_;  // [rows]
  UploadArray<uint64_t> row_seeds_;      // [rows]
  UploadArray<int32_t> row_positions_;   // [rows] of the tokens to draw
  DeviceArray<int32_t> drawn_;           // [1], and its position, of walks on the host
  std::vector<int32_t> host_path_;
};

}  // namespace medusa
