// The end of a step: results for the host, the cache's rows, the next hidden states.
#include "engine/step.h"

namespace medusa {

void Step::finish() {
  if (trees_.empty()) return;
  publish();
  compact();
  keep_last_hidden();
}

void Step::publish() {
  PublishParams results;
  results.num_sequences = num_trees();
  results.max_path = rows_.max_path();
  results.first_rows = rows_.first_rows();
  results.tokens = rows_.tokens();
  results.path = sampler_.path();
  results.count = sampler_.count();
  results.next_root = sampler_.next_root();
  results.slots = rows_.slots();
  results.num_end_tokens = end_tokens_.width();
  results.end_tokens = end_tokens_.data();
  results.step = ring_.step();
  results.entries = ring_.entries();
  model_->backend().kernels->publish(*context_, results);
}

void Step::compact() {
  const KvCacheStorage& storage = cache_.storage();
  for (CompactParams params : {storage.compact_scales(), storage.compact_rows()}) {
    params.num_sequences = num_trees();
    params.max_path = rows_.max_path();
    params.cache_slots = rows_.slots();
    params.path = sampler_.path();
    params.count = sampler_.count();
    params.length = rows_.lengths();
    params.advance = false;  // the next step brings the lengths along
    if (params.num_caches > 0) model_->backend().kernels->compact(*context_, params);
  }
}

void Step::keep_last_hidden() {
  GatherHiddenParams gather;
  gather.num_sequences = num_trees();
  gather.width = model_->config().hidden_size;
  gather.max_path = rows_.max_path();
  gather.hidden = hidden_.data();
  gather.first_rows = rows_.first_rows();
  gather.path = sampler_.path();
  gather.count = sampler_.count();
  gather.slots = rows_.slots();
  gather.out = last_hidden_.data();
  model_->backend().kernels->gather_hidden(*context_, gather);
}

void Step::take_results() {
  if (!trees_.empty()) {
    ring_.wait(model_->backend(), *context_);  // the one wait of the step
    is_uploading_ = false;
  }
  for (Sequence* s : sequences_) s->take_chunk();
  for (int32_t i = 0; i < num_trees(); ++i) {
    trees_[static_cast<size_t>(i)]->take_tree(ring_.path(i), ring_.tokens(i), ring_.count(i));
  }
}

void Step::copy_rows(float* out, const float* rows, int64_t num_floats) {
  model_->backend().copy_out(*context_, out, rows,
                             num_floats * static_cast<int64_t>(sizeof(float)));
}

void Step::copy_path_hidden(const Sequence& s, float* out) {
  const int64_t width = model_->config().hidden_size;
  if (s.num_chunk_rows > 0) {
    copy_rows(out, hidden_.data() + s.chunk_row * width, s.num_chunk_rows * width);
    out += s.num_chunk_rows * width;
  }
  for (int32_t node : s.path) {
    copy_rows(out, hidden_.data() + (s.tree_row + node) * width, width);
    out += width;
  }
  model_->backend().synchronize(*context_);
}

void Step::copy_logits(const Sequence& s, int32_t node, float* out) {
  const int64_t width = model_->config().vocab_size;
  copy_rows(out, logits_.data() + (s.tree_row + node) * width, width);
  model_->backend().synchronize(*context_);
}

}  // namespace medusa
