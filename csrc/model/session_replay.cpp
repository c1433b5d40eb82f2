// A whole step as recorded work: what changes from step to step is data, on the host in memory that
// the device reads, so that a step is one launch and one wait.
#include <algorithm>

#include "model/session.h"

namespace medusa {
namespace {

constexpr int32_t kTopKStep = 8;

}  // namespace

int32_t Session::node_capacity(const Model& model, int32_t max_nodes) {
  const bool is_replayed = model.backend().capture && max_nodes <= StepGraphs::kMaxNodes;
  return is_replayed ? StepGraphs::bucket(max_nodes) : max_nodes;
}

int32_t Session::padded_nodes() const {
  if (!model_->backend().capture) return 0;
  int32_t most = 0;
  for (int32_t b : active_) most = std::max(most, sequence(b).tree.num_nodes());
  return most > StepGraphs::kMaxNodes ? 0 : StepGraphs::bucket(most);
}

void Session::replay_step(int32_t num_nodes) {
  StepShape shape;
  shape.num_sequences = rows_.num_sequences();
  shape.num_nodes = num_nodes;
  shape.has_logits = wants_logits();
  if (drafting_heads_) {
    // Few different numbers, so that trees of like widths share a recording.
    const int32_t rounded = (drafting_top_k_ + kTopKStep - 1) / kTopKStep * kTopKStep;
    const int32_t most = std::min(HeadsRunner::kMaxTopK, drafting_heads_->config.draft_vocab_size);
    shape.heads = drafting_heads_.get();
    shape.top_k = std::min(rounded, most);
    runner(drafting_heads_);
  }
  reserve_logits(rows_.num_rows());
  if (sampling_.temperature > 0) fill_noise_keys();
  graphs_.run(model_->backend(), *context_, shape, [this, shape] { run_step(shape); });
  // Heads are evaluated at the state that this step leaves.
  ready_heads_ = drafting_heads_;
  ready_top_k_ = shape.top_k;
}

void Session::run_step(const StepShape& shape) {
  const Backend& backend = model_->backend();
  ForwardOutputs outputs;
  outputs.num_outputs = outputs.num_targets = rows_.num_rows();
  forward(outputs);
  if (sampling_.temperature <= 0) {
    backend.kernels->accept(*context_, accept_params());
  } else if (sampling_.typical) {
    accept_typical();
  } else {
    accept_sampled();
  }
  compact_rows();
  const int32_t num_sequences = shape.num_sequences;
  if (shape.heads) {
    HeadsRunner& evaluation = runners_.at(shape.heads).second;
    evaluation.run(*context_, num_sequences, last_hidden_.data(), rows_.slots(), next_root_.data(),
                   shape.top_k);
    // Rows of `last_hidden_` are cache slots, results are in the order of the active sequences.
    const int64_t size = int64_t{num_sequences} * shape.heads->config.num_heads * shape.top_k;
    backend.copy_out(*context_, ready_ids_.data(), evaluation.top_ids(),
                     size * static_cast<int64_t>(sizeof(int32_t)));
  }
  copy_results(num_sequences, rows_.max_path());
}

bool Session::has_ready(const std::shared_ptr<const Heads>& heads, int32_t top_k) const {
  return ready_heads_ && ready_heads_ == heads && top_k <= ready_top_k_;
}

}  // namespace medusa
