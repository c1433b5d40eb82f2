// What callers hand to a session, checked: prompts and drafts.
#include <algorithm>
#include <string>
#include <utility>

#include "core/checks.h"
#include "engine/session.h"

namespace medusa {

void Session::check_token(int32_t token) const {
  checked("token", token, 0, model_->config().vocab_size - 1);
}

bool Session::is_active(int32_t b) const {
  return std::binary_search(active_.begin(), active_.end(), b);
}

int32_t Session::prefill(int32_t b, const int32_t* tokens, int32_t count,
                         std::vector<float>* hidden) {
  Sequence& s = sequence(b);
  checked("prompt tokens", count, 1, std::max(max_length_ - s.length(), 0));
  for (int32_t i = 0; i < count; ++i) check_token(tokens[i]);
  const int32_t start = s.length(), root = s.root;
  try {
    prefill_chunks(s, tokens, count, hidden);
  } catch (...) {
    truncate(b, start, root);
    throw;
  }
  prefilled_ = &s;
  return s.root;
}

void Session::prefill_chunks(Sequence& s, const int32_t* tokens, int32_t count,
                             std::vector<float>* hidden) {
  const int64_t width = model_->config().hidden_size;
  if (hidden) hidden->resize(static_cast<size_t>(count * width));
  phase_ = Phase::kIdle;
  prefilled_ = nullptr;
  head_drafts_.begin();
  for (int32_t begin = 0; begin < count; begin += kChunkRows) {
    const int32_t rows = std::min(kChunkRows, count - begin);
    s.feed(tokens + begin, rows, begin + rows == count);
    step_.begin(select({s.slot}));
    eager_.verify(step_, head_drafts_);
    eager_.accept(step_);
    eager_.finish(step_);
    step_.take_results();
    if (hidden) step_.copy_path_hidden(s, hidden->data() + begin * width);
  }
  check_finite();
}

void Session::truncate(int32_t b, int32_t length, int32_t root) {
  Sequence& s = sequence(b);
  checked("length", length, 0, s.length());
  if (root != -1) check_token(root);
  step_.cache().truncate(s.slot, length);
  s.truncate(length, root);
  phase_ = Phase::kIdle;
}

void Session::begin_step() {
  for (int32_t b : active_) {
    if (length(b) < max_length_) continue;
    fail("begin_step: sequence " + std::to_string(b),
         "fewer than max_length = " + std::to_string(max_length_) + " rows", length(b));
  }
  for (int32_t b : active_) sequence(b).begin_step(max_nodes_, max_length_);
  phase_ = Phase::kDrafting;
  drafting_ = active_;
  head_drafts_.begin();
}

void Session::feed(int32_t b, const std::vector<int32_t>& tokens, bool is_last) {
  require_phase(Phase::kDrafting, "feed");
  Sequence& s = sequence(b);
  if (!is_active(b)) fail("feed: b", "an active one", b);
  if (s.is_fed) fail("feed: b", "a sequence not fed in this step", b);
  const auto count = static_cast<int32_t>(tokens.size());
  checked("feed: tokens", count, 1, std::max(max_length_ - s.length(), 0));
  for (int32_t token : tokens) check_token(token);
  s.feed(tokens.data(), count, is_last);
}

void Session::draft_for(std::vector<int32_t> sequences) {
  require_phase(Phase::kDrafting, "draft_for");
  for (int32_t b : sequences) {
    if (!is_active(b)) fail("draft_for: sequences", "active ones", b);
  }
  drafting_ = std::move(sequences);
}

int32_t Session::add_node(int32_t b, int32_t parent, int32_t token) {
  require_phase(Phase::kDrafting, "add_node");
  check_token(token);
  return sequence(b).tree.add(parent, token);
}

void Session::set_tree(int32_t b, const std::vector<int32_t>& tokens,
                       const std::vector<int32_t>& parents) {
  require_phase(Phase::kDrafting, "set_tree");
  Sequence& s = sequence(b);
  if (!s.drafts()) fail("set_tree: b", "a sequence with a root that is not fed", b);
  const int32_t num_nodes = static_cast<int32_t>(tokens.size());
  checked("set_tree: nodes", num_nodes, 1, max_nodes_);
  if (parents.size() != tokens.size()) {
    fail("set_tree: parents", "as many as tokens, " + std::to_string(num_nodes),
         static_cast<int64_t>(parents.size()));
  }
  if (tokens[0] != s.root) {
    fail("set_tree: tokens[0]", "the root, " + std::to_string(s.root), tokens[0]);
  }
  if (parents[0] != -1) fail("set_tree: parents[0]", "-1", parents[0]);
  for (int32_t node = 1; node < num_nodes; ++node) {
    check_token(tokens[static_cast<size_t>(node)]);
    checked("set_tree: parents", parents[static_cast<size_t>(node)], 0, node - 1);
  }
  s.tree.assign(tokens, parents);
}

void Session::head_candidates(const std::shared_ptr<const Heads>& heads, int32_t top_k,
                              std::vector<int32_t>* ids, std::vector<float>* log_probs) {
  head_drafts_.candidates(heads, select(active_), top_k, ids, log_probs);
}

void Session::draft_heads(const std::shared_ptr<const Heads>& heads, const TokenTree& tree) {
  require_phase(Phase::kDrafting, "draft_heads");
  head_drafts_.add(heads, tree, select(drafting_), usual_->runs_heads());
}

int32_t Session::draft_lookup(const LookupOptions& options) {
  require_phase(Phase::kDrafting, "draft_lookup");
  return lookup_drafts_.add(select(drafting_), options);
}

std::vector<int32_t> Session::look_up(int32_t b, const LookupOptions& options) {
  return lookup_drafts_.look_up(sequence(b), options);
}

}  // namespace medusa
