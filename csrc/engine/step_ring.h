// The host's end of a step: results arrive in memory that the device writes and the host polls.
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "core/params/step.h"

namespace medusa {

class StepRing {
 public:
  StepRing() = default;
  /// Room for steps of up to `max_sequences` sequences and paths of `max_path` nodes.
  StepRing(const Backend& backend, int32_t max_sequences, int32_t max_path);

  /// A new step, which `publish` is to write to. The one before stays readable.
  void begin() { ++step_[0]; }
  /// Waits until the step is there.
  void wait(const Backend& backend, Context& context) const;

  /// Where `publish` finds the step's number and puts its results.
  const int32_t* step() const { return step_.data(); }
  const StepEntries& entries() const { return entries_; }

  // Results of the last step for the i-th sequence that took part.
  int32_t count(int32_t i) const { return entries_.counts[row(i)]; }
  const int32_t* tokens(int32_t i) const { return entries_.tokens + row(i) * entries_.max_path; }
  const int32_t* path(int32_t i) const { return entries_.paths + row(i) * entries_.max_path; }

 private:
  int32_t entry() const { return step_[0] % entries_.capacity; }
  int64_t row(int32_t i) const { return int64_t{entry()} * entries_.num_sequences + i; }

  StepEntries entries_;
  HostArray<int32_t> step_;    // [1], read by the device in place
  HostArray<int32_t> memory_;  // what `entries_` points into
};

}  // namespace medusa
