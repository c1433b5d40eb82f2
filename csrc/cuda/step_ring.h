// The host's end of a step: entries in pinned memory that `publish` fills and the host polls.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/step.h"

namespace medusa::cuda {

/// Room for `capacity` steps of B sequences. The host may launch at most `capacity` steps beyond
/// the last one it has read.
class StepRing {
 public:
  struct Sequence {
    std::vector<int32_t> tokens;
    bool finished;
  };

  /// Throws std::runtime_error when there is no pinned memory.
  StepRing(int32_t capacity, int32_t num_sequences, int32_t max_path);

  const StepEntries& entries() const { return entries_; }

  /// Whether step `step` (0 for the first) is complete; never waits, never touches the device.
  bool is_ready(uint64_t step) const;

  /// What sequence b emitted in a step that is ready.
  Sequence read(uint64_t step, int32_t b) const;

 private:
  std::shared_ptr<void> memory_;
  StepEntries entries_;
  int32_t num_sequences_;
  int32_t max_path_;
};

}  // namespace medusa::cuda
