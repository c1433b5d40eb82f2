#include "engine/step_graphs.h"

#include <algorithm>
#include <iterator>

namespace medusa {

int32_t StepGraphs::bucket(int32_t num_nodes) {
  if (num_nodes <= 1) return 1;
  int32_t bucket = 4;
  while (bucket < num_nodes) bucket *= 2;
  return bucket;
}

void StepGraphs::run(const Backend& backend, Context& context, const StepShape& shape,
                     const std::function<void()>& step) {
  const auto [found, is_first] = graphs_.emplace(shape, nullptr);
  if (is_first) return step();
  if (!found->second) found->second = backend.capture(context, step);
  found->second->launch(context);
}

void StepGraphs::clear_with_logits() {
  for (auto entry = graphs_.begin(); entry != graphs_.end();) {
    entry = entry->first.has_logits ? graphs_.erase(entry) : std::next(entry);
  }
}

size_t StepGraphs::num_recorded() const {
  return static_cast<size_t>(std::count_if(
      graphs_.begin(), graphs_.end(), [](const auto& entry) { return entry.second != nullptr; }));
}

}  // namespace medusa
