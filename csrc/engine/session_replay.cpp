// A whole step as recorded work: what changes from step to step is data, on the host in memory that
// the device reads, so that a step is one launch and one wait.
#include <algorithm>

#include "engine/session.h"

namespace medusa {
namespace {

constexpr int32_t kTopKStep = 8;

}  // namespace

bool Session::replays(const Model& model, int32_t max_nodes) {
  return model.backend().capture && max_nodes <= StepGraphs::kMaxNodes;
}

int32_t Session::node_capacity(const Model& model, int32_t max_nodes) {
  return replays(model, max_nodes) ? StepGraphs::bucket(max_nodes) : max_nodes;
}

void Session::replay_step() {
  int32_t most = 0;
  for (const Sequence* s : trees_) most = std::max(most, s->tree.num_nodes());
  StepShape shape;
  shape.num_sequences = static_cast<int32_t>(trees_.size());
  shape.num_nodes = StepGraphs::bucket(most);
  shape.has_logits = wants_logits();
  shape.kinds = Sampler::kinds(trees_);
  if (drafting_heads_) {
    // Few different numbers, so that trees of like widths share a recording.
    const int32_t rounded = (drafting_top_k_ + kTopKStep - 1) / kTopKStep * kTopKStep;
    const int32_t most_ranks = std::min(kMaxHeadRanks, drafting_heads_->config.draft_vocab_size);
    shape.heads = drafting_heads_.get();
    shape.top_k = std::min(rounded, most_ranks);
  }
  for (Sequence* s : trees_) {
    s->tree_row = rows_.num_rows();
    s->num_tree_rows = s->tree.num_nodes();
    cache_.reserve(*context_, s->slot, s->length(), s->root_position() + shape.num_nodes);
    rows_.add_drafts(s->slot, s->root_position(), s->tree, shape.num_nodes);
  }
  reserve_logits();
  sampler_.begin(rows_, trees_);
  is_uploading_ = true;
  ring_.begin();
  graphs_.run(model_->backend(), *context_, shape, [this, shape] { run_step(shape); });
}

void Session::run_step(const StepShape& shape) {
  rows_.upload_drafts(*context_);
  const RowTable table = rows_.merge(*context_, run_heads(shape));
  forward(table);
  sampler_.accept(*context_, rows_, logits_.data());
  finish_step();
}

MergeDraftsParams Session::run_heads(const StepShape& shape) {
  MergeDraftsParams drafts;
  if (!shape.heads) return drafts;
  HeadsRunner& evaluation = runners_.at(shape.heads).second;
  evaluation.run(*context_, shape.num_sequences, last_hidden_.data(), rows_.slots(), rows_.roots(),
                 shape.top_k);
  drafts.num_heads = shape.heads->config.num_heads;
  drafts.top_k = shape.top_k;
  drafts.top_ids = evaluation.top_ids();
  return drafts;
}

}  // namespace medusa
