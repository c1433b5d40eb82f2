// A session's step from verify to its results.
#include <algorithm>
#include <numeric>
#include <string>

#include "core/checks.h"
#include "engine/session.h"

namespace medusa {
namespace {

/// Rows of a chunk that share a mask with trees: one word's worth, so that trees' masks stay small.
constexpr int32_t kPieceRows = 64;

}  // namespace

void Session::allocate_rows() {
  const Backend& backend = model_->backend();
  const int32_t max_rows = decoder_.max_rows();
  const int32_t max_entries = 2 * batch() + max_rows / kPieceRows;
  rows_ = StepRows(backend, max_rows, max_entries,
                   std::max(node_capacity(*model_, max_nodes_), kPieceRows));
  hidden_ = DeviceArray<float>(backend, int64_t{max_rows} * model_->config().hidden_size);
}

void Session::reserve_rows(int32_t num_rows) {
  if (num_rows <= decoder_.max_rows()) return;
  model_->backend().synchronize(*context_);
  graphs_.clear();  // they hold the old addresses
  decoder_ = Decoder(model_, std::max(num_rows, decoder_.max_rows() * 3 / 2), max_length_);
  allocate_rows();
}

bool Session::wants_logits() const {
  return std::any_of(trees_.begin(), trees_.end(),
                     [](const Sequence* s) { return s->wants_logits(); });
}

void Session::reserve_logits() {
  const int64_t size = int64_t{num_tree_rows()} * model_->config().vocab_size;
  if (!wants_logits() || size <= logits_.size()) return;
  graphs_.clear_with_logits();
  logits_ = DeviceArray<float>(model_->backend(), size);
}

void Session::begin_rows(const std::vector<int32_t>& sequences) {
  if (is_uploading_) model_->backend().synchronize(*context_);
  is_uploading_ = false;
  rows_.clear();
  for (Sequence& s : sequences_) s.forget_rows();
  stepping_.clear();
  trees_.clear();
  for (int32_t b : sequences) {
    Sequence& s = sequence(b);
    stepping_.push_back(&s);
    if (s.tree.num_nodes() == 0) continue;
    trees_.push_back(&s);
    s.has_logits = s.wants_logits();
  }
}

void Session::add_rows() {
  for (const Sequence* s : stepping_) {
    cache_.reserve(*context_, s->slot, s->length(), s->length() + s->num_rows());
  }
  for (Sequence* s : trees_) {
    s->tree_row = rows_.num_rows();
    s->num_tree_rows = s->tree.num_nodes();
    rows_.add_tree(s->slot, s->root_position(), s->tree);
  }
  for (Sequence* s : stepping_) {
    const auto count = static_cast<int32_t>(s->chunk.size());
    if (count == 0) continue;
    s->chunk_row = rows_.num_rows();
    s->num_chunk_rows = count;
    const int32_t piece = rows_.is_chains_only() ? count : kPieceRows;
    for (int32_t begin = 0; begin < count; begin += piece) {
      rows_.add_chain(s->slot, s->length() + begin, s->chunk.data() + begin,
                      std::min(piece, count - begin));
    }
  }
}

void Session::run_rows() {
  reserve_rows(std::accumulate(stepping_.begin(), stepping_.end(), 0,
                               [](int32_t sum, const Sequence* s) { return sum + s->num_rows(); }));
  add_rows();
  reserve_logits();
  sampler_.begin(rows_, trees_);
  is_uploading_ = true;
  forward(rows_.upload(*context_));
}

void Session::forward(const RowTable& table) {
  ForwardOutputs outputs;
  outputs.hidden = hidden_.data();
  outputs.num_targets = num_tree_rows();
  outputs.targets = sampler_.targets();
  if (wants_logits()) outputs.logits = logits_.data();
  decoder_.forward(*context_, table, cache_.storage().layers(), outputs, interrupt_);
  if (!outputs.logits) return;
  ArgmaxParams argmax;
  argmax.num_rows = outputs.num_targets;
  argmax.width = model_->config().vocab_size;
  argmax.logits = outputs.logits;
  argmax.row_stride = argmax.width;
  argmax.out = outputs.targets;
  model_->backend().kernels->argmax(*context_, argmax);
}

void Session::verify() {
  require_phase(Phase::kDrafting, "verify");
  for (int32_t b : active_) {
    if (sequence(b).num_rows() > 0) continue;
    fail("verify: sequence " + std::to_string(b), "a prefill or a feed first", sequence(b).root);
  }
  has_prefill_logits_ = false;
  begin_rows(active_);
  const bool has_chunks = std::any_of(stepping_.begin(), stepping_.end(),
                                      [](const Sequence* s) { return !s->chunk.empty(); });
  step_is_replayed_ = is_replayed_ && !has_chunks;
  if (step_is_replayed_) {
    replay_step();
  } else {
    resolve_head_nodes();
    run_rows();
  }
  end_phase(Phase::kVerified);
}

void Session::accept() {
  require_phase(Phase::kVerified, "accept");
  // A replayed step went through to its end when it was verified.
  if (!step_is_replayed_) sampler_.accept(*context_, rows_, logits_.data());
  end_phase(Phase::kAccepted);
}

void Session::compact() {
  require_phase(Phase::kAccepted, "compact");
  end_step();
  end_phase(Phase::kIdle);
}

}  // namespace medusa
