// Recorded steps of a session: one per number of sequences, bucket of nodes and kind of step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <tuple>

#include "core/backend.h"
#include "engine/sampler.h"

namespace medusa {

class Heads;

/// What a recorded step depends on besides the session's buffers.
struct StepShape {
  int32_t num_sequences = 0;
  int32_t num_nodes = 0;  // of every tree, padding included
  bool has_logits = false;
  SamplingKinds kinds;
  const Heads* heads = nullptr;  // evaluated for the step after it, or null
  int32_t top_k = 0;             // of these heads

  bool operator<(const StepShape& other) const {
    const auto key = [](const StepShape& s) {
      return std::make_tuple(s.num_sequences, s.num_nodes, s.has_logits, s.kinds, s.heads, s.top_k);
    };
    return key(*this) < key(other);
  }
};

class StepGraphs {
 public:
  /// Trees are padded to the least of 1, 4, 8, 16, 32, 64, 128 and 256 nodes that holds them.
  static constexpr int32_t kMaxNodes = 256;
  static int32_t bucket(int32_t num_nodes);

  /// The first step of a shape runs as it is, which lets buffers grow and the backend choose its
  /// algorithms; the second one is recorded.
  void run(const Backend& backend, Context& context, const StepShape& shape,
           const std::function<void()>& step);

  void clear() { graphs_.clear(); }
  /// Forgets those whose steps store logits, whose address has changed.
  void clear_with_logits();
  size_t num_recorded() const;

 private:
  std::map<StepShape, std::unique_ptr<Graph>> graphs_;  // null: has run once
};

}  // namespace medusa
