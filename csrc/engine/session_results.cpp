// The end of a session's step: results for the host, the cache's rows, the next hidden state.
#include "engine/session.h"

namespace medusa {

void Session::finish_step() {
  if (!is_replayed_) ring_.begin();
  publish();
  compact_rows();
  keep_last_hidden(rows_.num_sequences(), rows_.max_path());
}

void Session::publish() {
  PublishParams results;
  results.num_sequences = rows_.num_sequences();
  results.max_path = rows_.max_path();
  results.first_rows = rows_.first_rows();
  results.tokens = rows_.tokens();
  results.path = path_.data();
  results.count = count_.data();
  results.next_root = next_root_.data();
  results.num_end_tokens = static_cast<int32_t>(end_tokens_.size());
  results.end_tokens = end_tokens_on_device_.data();
  results.step = ring_.step();
  results.entries = ring_.entries();
  model_->backend().kernels->publish(*context_, results);
}

void Session::compact_rows() {
  for (CompactParams params : {cache_.compact_scales(), cache_.compact_rows()}) {
    params.num_sequences = rows_.num_sequences();
    params.max_path = rows_.max_path();
    params.cache_slots = rows_.slots();
    params.path = path_.data();
    params.count = count_.data();
    params.length = rows_.lengths();
    params.advance = false;  // the next step brings the lengths along
    if (params.num_caches > 0) model_->backend().kernels->compact(*context_, params);
  }
}

void Session::keep_last_hidden(int32_t num_sequences, int32_t max_path) {
  GatherHiddenParams gather;
  gather.num_sequences = num_sequences;
  gather.width = model_->config().hidden_size;
  gather.max_path = max_path;
  gather.hidden = hidden_.data();
  gather.first_rows = rows_.first_rows();
  gather.path = path_.data();
  gather.count = count_.data();
  gather.slots = rows_.slots();
  gather.out = last_hidden_.data();
  model_->backend().kernels->gather_hidden(*context_, gather);
}

void Session::take_results() {
  for (int32_t i = 0; i < rows_.num_sequences(); ++i) {
    Sequence& s = sequence(active_[static_cast<size_t>(i)]);
    const int32_t count = ring_.count(i);
    s.path.assign(ring_.path(i), ring_.path(i) + count);
    s.emitted.assign(ring_.tokens(i), ring_.tokens(i) + count);
    s.text.push_back(s.root);
    s.text.insert(s.text.end(), s.emitted.begin(), s.emitted.end() - 1);
    s.root = s.emitted.back();
    s.has_hidden = true;
  }
}

}  // namespace medusa
