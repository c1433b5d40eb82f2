#include "engine/step_ring.h"

#include <algorithm>

namespace medusa {
namespace {

constexpr int32_t kCapacity = 2;

}  // namespace

StepRing::StepRing(const Backend& backend, int32_t max_sequences, int32_t max_path)
    : step_(backend, 1) {
  const int64_t rows = int64_t{kCapacity} * max_sequences;
  memory_ = HostArray<int32_t>(backend, rows * (2 * int64_t{max_path} + 1) + kCapacity);
  entries_.capacity = kCapacity;
  entries_.num_sequences = max_sequences;
  entries_.max_path = max_path;
  entries_.tokens = memory_.data();
  entries_.paths = entries_.tokens + rows * max_path;
  entries_.counts = entries_.paths + rows * max_path;
  entries_.steps = entries_.counts + rows;
  std::fill_n(entries_.steps, kCapacity, 0);
  step_[0] = 0;
}

void StepRing::wait(const Backend& backend, Context& context) const {
  backend.wait_for(context, entries_.steps + entry(), step_[0]);
}

}  // namespace medusa
