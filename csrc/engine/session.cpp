#include "engine/session.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/checks.h"

namespace medusa {
namespace {

/// Rows of one prefill forward: enough for the arithmetic limit, small enough for its buffers.
constexpr int32_t kPrefillChunk = 512;

constexpr int32_t kMaxBatch = 4096;
constexpr int32_t kMaxCacheRows = 1 << 24;

}  // namespace

Session::Session(std::shared_ptr<const Model> model, int32_t batch, int32_t max_length,
                 int32_t max_nodes, DType kv_dtype, int64_t kv_memory)
    : model_(std::move(model)),
      context_(model_->backend().make_context()),
      max_length_(checked("max_length", max_length, 1, kMaxCacheRows)),
      max_nodes_(checked("max_nodes", max_nodes, 1, TokenTree::kMaxNodes)),
      decoder_(model_,
               std::max(std::min(kPrefillChunk, max_length),
                        checked("batch", batch, 1, kMaxBatch) * node_capacity(*model_, max_nodes)),
               max_length),
      cache_(*model_, kv_dtype, batch, max_length + node_capacity(*model_, max_nodes), kv_memory),
      sequences_(static_cast<size_t>(batch)),
      sampler_(model_->backend(), model_->config().vocab_size, batch,
               node_capacity(*model_, max_nodes)),
      ring_(model_->backend(), batch, node_capacity(*model_, max_nodes)),
      end_tokens_(model_->backend(), *context_, batch),
      is_replayed_(replays(*model_, max_nodes)) {
  const Backend& backend = model_->backend();
  last_hidden_ = DeviceArray<float>(backend, int64_t{batch} * model_->config().hidden_size);
  slots_ = DeviceArray<int32_t>(backend, batch);
  roots_ = DeviceArray<int32_t>(backend, batch);
  for (int32_t b = 0; b < batch; ++b) {
    sequences_[static_cast<size_t>(b)].slot = b;
    active_.push_back(b);
  }
  allocate_rows();
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

void Session::require_phase(Phase phase, const char* call) const {
  if (phase_ == phase) return;
  throw std::logic_error(std::string(call) +
                         ": out of order; a step is begin_step, drafts, verify, accept, compact");
}

void Session::check_token(int32_t token) const {
  checked("token", token, 0, model_->config().vocab_size - 1);
}

void Session::set_sampling(int32_t b, const SamplingRule& rule, uint64_t seed) {
  Sequence& s = sequence(b);
  const auto in_range = [](const char* name, float value, float least, float most) {
    if (value >= least && value <= most) return;
    throw std::invalid_argument(std::string(name) + ": needs a number from " +
                                std::to_string(least) + " to " + std::to_string(most) + ", got " +
                                std::to_string(value));
  };
  in_range("temperature", rule.temperature, 0, 1e4f);
  in_range("top_p", rule.top_p, 0, 1);
  in_range("epsilon", rule.epsilon, 0, 1);
  in_range("delta", rule.delta, 0, 1e4f);
  checked("top_k", rule.top_k, 0, model_->config().vocab_size);
  s.rule = rule;
  s.rule.typical = rule.typical && s.samples();
  s.seed = seed;
}

void Session::set_active(std::vector<int32_t> active) {
  if (active.empty()) fail("active", "at least one sequence", 0);
  for (size_t i = 0; i < active.size(); ++i) {
    checked("active", active[i], i == 0 ? 0 : active[i - 1] + 1, batch() - 1);
  }
  active_ = std::move(active);
  phase_ = Phase::kIdle;
}

void Session::set_end_tokens(int32_t b, std::vector<int32_t> tokens) {
  const int32_t slot = sequence(b).slot;
  if (end_tokens_.set(*context_, slot, std::move(tokens))) graphs_.clear();
}

void Session::set_profiling(bool profiling) {
  is_profiling_ = profiling;
  times_.synchronize = model_->backend().synchronize;
  context_->times = profiling ? &times_ : nullptr;
  is_replayed_ = replays(*model_, max_nodes_) && !profiling;
  phase_ = Phase::kIdle;
}

void Session::end_phase(Phase phase) {
  if (is_profiling_) model_->backend().synchronize(*context_);
  phase_ = phase;
}

void Session::truncate(int32_t b, int32_t length, int32_t root) {
  Sequence& s = sequence(b);
  checked("length", length, 0, this->length(b));
  if (root != -1) check_token(root);
  s.text.resize(static_cast<size_t>(length));
  cache_.truncate(s.slot, length);
  if (s.ngrams) s.ngrams->truncate(length);
  s.root = root;
  s.has_hidden = false;
  phase_ = Phase::kIdle;
}

}  // namespace medusa
