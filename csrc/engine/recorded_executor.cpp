#include <algorithm>

#include "engine/executor.h"

namespace medusa {
namespace {

constexpr int32_t kTopKStep = 8;

StepShape shape_of(const Step& step, const HeadDrafts& heads) {
  int32_t most = 0;
  for (const Sequence* s : step.trees()) most = std::max(most, s->tree.num_nodes());
  StepShape shape;
  shape.num_sequences = static_cast<int32_t>(step.trees().size());
  shape.num_nodes = StepGraphs::bucket(most);
  shape.has_logits = step.wants_logits();
  shape.kinds = Sampler::kinds(step.trees());
  if (const Heads* open = heads.open()) {
    // Few different numbers, so that trees of like widths share a recording.
    const int32_t rounded = (heads.open_top_k() + kTopKStep - 1) / kTopKStep * kTopKStep;
    shape.heads = open;
    shape.top_k = std::min({rounded, kMaxHeadRanks, open->config.draft_vocab_size});
  }
  return shape;
}

}  // namespace

bool RecordedExecutor::supports(const Model& model, int32_t max_nodes) {
  return model.backend().capture && max_nodes <= StepGraphs::kMaxNodes;
}

void RecordedExecutor::forget_moved(const Step& step) {
  if (version_ != step.version()) graphs_.clear();
  if (logits_version_ != step.logits_version()) graphs_.clear_with_logits();
  version_ = step.version();
  logits_version_ = step.logits_version();
}

void RecordedExecutor::verify(Step& step, HeadDrafts& heads) {
  const StepShape shape = shape_of(step, heads);
  step.add_padded_trees(shape.num_nodes);
  forget_moved(step);
  step.begin_results();
  graphs_.run(step.model().backend(), step.context(), shape, [&] {
    StepRows& rows = step.rows();
    rows.upload_drafts(step.context());
    step.forward(rows.merge(step.context(), heads.run(rows, shape.heads, shape.top_k)));
    step.accept();
    step.finish();
  });
}

}  // namespace medusa
