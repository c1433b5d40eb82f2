#include "engine/session.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/checks.h"

namespace medusa {
namespace {

constexpr int32_t kMaxBatch = 4096;
constexpr int32_t kMaxCacheRows = 1 << 24;

SessionSizes checked_sizes(const Model& model, int32_t batch, int32_t max_length,
                           int32_t max_nodes) {
  SessionSizes sizes;
  sizes.batch = checked("batch", batch, 1, kMaxBatch);
  sizes.max_length = checked("max_length", max_length, 1, kMaxCacheRows);
  sizes.max_nodes = checked("max_nodes", max_nodes, 1, TokenTree::kMaxNodes);
  if (RecordedExecutor::supports(model, max_nodes)) sizes.max_nodes = StepGraphs::bucket(max_nodes);
  return sizes;
}

}  // namespace

Session::Session(std::shared_ptr<const Model> model, int32_t batch, int32_t max_length,
                 int32_t max_nodes, DType kv_dtype, int64_t kv_memory)
    : model_(std::move(model)),
      context_(model_->backend().make_context()),
      max_length_(max_length),
      max_nodes_(max_nodes),
      step_(model_, *context_, checked_sizes(*model_, batch, max_length, max_nodes), kv_dtype,
            kv_memory),
      head_drafts_(model_, *context_, step_.last_hidden().data(), batch) {
  sequences_.resize(static_cast<size_t>(batch));
  for (int32_t b = 0; b < batch; ++b) {
    sequences_[static_cast<size_t>(b)].slot = b;
    active_.push_back(b);
  }
  if (RecordedExecutor::supports(*model_, max_nodes)) {
    recorded_ = std::make_unique<RecordedExecutor>();
  }
  set_profiling(false);
}

Session::Busy::Busy(Session& session) : session_(session) {
  session_.context_->activate();
  if (session_.busy_.test_and_set()) {
    throw std::runtime_error("session: in use by another thread; make one session per thread");
  }
}

Sequence& Session::sequence(int32_t b) {
  return sequences_[static_cast<size_t>(checked("sequence", b, 0, batch() - 1))];
}

const Sequence& Session::sequence(int32_t b) const {
  return sequences_[static_cast<size_t>(checked("sequence", b, 0, batch() - 1))];
}

const std::vector<Sequence*>& Session::select(const std::vector<int32_t>& sequences) {
  selected_.clear();
  for (int32_t b : sequences) selected_.push_back(&sequence(b));
  return selected_;
}

void Session::require_phase(Phase phase, const char* call) const {
  if (phase_ == phase) return;
  throw std::logic_error(std::string(call) +
                         ": out of order; a step is begin_step, drafts, verify, accept, compact");
}

void Session::end_phase(Phase phase) {
  if (is_profiling_) model_->backend().synchronize(*context_);
  phase_ = phase;
}

void Session::set_active(std::vector<int32_t> active) {
  if (active.empty()) fail("active", "at least one sequence", 0);
  for (size_t i = 0; i < active.size(); ++i) {
    checked("active", active[i], i == 0 ? 0 : active[i - 1] + 1, batch() - 1);
  }
  active_ = std::move(active);
  phase_ = Phase::kIdle;
}

void Session::set_sampling(int32_t b, const SamplingRule& rule, uint64_t seed) {
  sequence(b).set_sampling(checked_rule(rule, model_->config().vocab_size), seed);
}

void Session::set_end_tokens(int32_t b, std::vector<int32_t> tokens) {
  step_.set_end_tokens(sequence(b).slot, std::move(tokens));
}

void Session::set_profiling(bool profiling) {
  is_profiling_ = profiling;
  times_.synchronize = model_->backend().synchronize;
  context_->times = profiling ? &times_ : nullptr;
  usual_ = &eager_;
  if (recorded_ && !profiling) usual_ = recorded_.get();
  phase_ = Phase::kIdle;
}

void Session::verify() {
  require_phase(Phase::kDrafting, "verify");
  for (const Sequence* s : select(active_)) {
    if (s->num_rows() > 0) continue;
    fail("verify: sequence " + std::to_string(s->slot), "a prefill or a feed first", s->root);
  }
  prefilled_ = nullptr;
  step_.begin(selected_);
  executor_ = step_.has_chunks() ? &eager_ : usual_;
  executor_->verify(step_, head_drafts_);
  end_phase(Phase::kVerified);
}

void Session::accept() {
  require_phase(Phase::kVerified, "accept");
  executor_->accept(step_);
  end_phase(Phase::kAccepted);
}

void Session::compact() {
  require_phase(Phase::kAccepted, "compact");
  executor_->finish(step_);
  step_.take_results();
  end_phase(Phase::kIdle);
}

}  // namespace medusa
