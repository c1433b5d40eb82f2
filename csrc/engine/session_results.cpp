// The end of a session's step: results for the host, the cache's rows, the next hidden state.
#include <algorithm>
#include <stdexcept>

#include "core/checks.h"
#include "engine/session.h"

namespace medusa {

void Session::finish_step() {
  publish();
  compact_rows();
  keep_last_hidden();
}

void Session::publish() {
  PublishParams results;
  results.num_sequences = static_cast<int32_t>(trees_.size());
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

void Session::compact_rows() {
  const KvCacheStorage& storage = cache_.storage();
  for (CompactParams params : {storage.compact_scales(), storage.compact_rows()}) {
    params.num_sequences = static_cast<int32_t>(trees_.size());
    params.max_path = rows_.max_path();
    params.cache_slots = rows_.slots();
    params.path = sampler_.path();
    params.count = sampler_.count();
    params.length = rows_.lengths();
    params.advance = false;  // the next step brings the lengths along
    if (params.num_caches > 0) model_->backend().kernels->compact(*context_, params);
  }
}

void Session::keep_last_hidden() {
  GatherHiddenParams gather;
  gather.num_sequences = static_cast<int32_t>(trees_.size());
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

void Session::end_step() {
  if (!trees_.empty()) {
    if (!step_is_replayed_) {
      ring_.begin();
      finish_step();
    }
    ring_.wait(model_->backend(), *context_);  // the one wait of the step
    is_uploading_ = false;
  }
  take_results();
}

void Session::take_results() {
  for (Sequence* s : stepping_) {
    if (s->is_fed && s->ngrams) s->ngrams->truncate(s->length());
    s->text.insert(s->text.end(), s->chunk.begin(), s->chunk.end());
    s->path.clear();
    s->emitted.clear();
    s->has_hidden = s->tree.num_nodes() > 0;
    s->root = -1;
  }
  for (size_t i = 0; i < trees_.size(); ++i) {
    Sequence& s = *trees_[i];
    const auto entry = static_cast<int32_t>(i);
    const int32_t count = ring_.count(entry);
    s.path.assign(ring_.path(entry), ring_.path(entry) + count);
    s.emitted.assign(ring_.tokens(entry), ring_.tokens(entry) + count);
    s.text.push_back(s.tree.tokens()[0]);
    s.text.insert(s.text.end(), s.emitted.begin(), s.emitted.end() - 1);
    s.root = s.emitted.back();
  }
}

void Session::copy_rows(float* out, const float* rows, int64_t num_floats) {
  model_->backend().copy_out(*context_, out, rows,
                             num_floats * static_cast<int64_t>(sizeof(float)));
}

void Session::require_rows(int32_t b) const {
  if (!std::binary_search(active_.begin(), active_.end(), b)) fail("sequence", "an active one", b);
  if (sequence(b).num_chunk_rows + sequence(b).num_tree_rows > 0) return;
  throw std::logic_error("session: there was no step yet");
}

int32_t Session::num_path_rows(int32_t b) const {
  const Sequence& s = sequence(b);
  return s.num_chunk_rows + static_cast<int32_t>(s.path.size());
}

void Session::copy_path_hidden(int32_t b, float* out) {
  const Sequence& s = sequence(b);
  if (num_path_rows(b) > 0) require_rows(b);
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

void Session::copy_logits(int32_t b, int32_t node, float* out) {
  const Sequence& s = sequence(b);
  require_rows(b);
  if (!s.has_logits) {
    throw std::logic_error("logits: not kept in the last step; call keep_logits before it");
  }
  checked("node", node, 0, s.num_tree_rows - 1);
  const int64_t width = model_->config().vocab_size;
  copy_rows(out, logits_.data() + (s.tree_row + node) * width, width);
  model_->backend().synchronize(*context_);
}

void Session::copy_prefill_logits(float* out) {
  if (!has_prefill_logits_) {
    throw std::logic_error("logits: not kept in the last prefill; call keep_logits before it");
  }
  copy_rows(out, logits_.data(), model_->config().vocab_size);
  model_->backend().synchronize(*context_);
}

}  // namespace medusa
