#include "engine/session.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
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
                 int32_t max_nodes, DType kv_dtype)
    : model_(std::move(model)),
      context_(model_->backend().make_context()),
      max_length_(checked("max_length", max_length, 1, kMaxCacheRows)),
      max_nodes_(checked("max_nodes", max_nodes, 1, TokenTree::kMaxNodes)),
      decoder_(model_,
               std::max(std::min(kPrefillChunk, max_length),
                        checked("batch", batch, 1, kMaxBatch) * node_capacity(*model_, max_nodes)),
               max_length),
      cache_(*model_, kv_dtype, batch, max_length + node_capacity(*model_, max_nodes)),
      rows_(model_->backend(), decoder_.max_rows(), batch, node_capacity(*model_, max_nodes)),
      sequences_(static_cast<size_t>(batch)),
      ring_(model_->backend(), batch, node_capacity(*model_, max_nodes)),
      is_replayed_(replays(*model_, max_nodes)) {
  const Backend& backend = model_->backend();
  const int64_t rows = decoder_.max_rows();
  const int64_t width = model_->config().hidden_size;
  hidden_ = DeviceArray<float>(backend, rows * width);
  last_hidden_ = DeviceArray<float>(backend, batch * width);
  targets_ = DeviceArray<int32_t>(backend, rows);
  const int64_t path_size = int64_t{batch} * node_capacity(*model_, max_nodes);
  path_ = DeviceArray<int32_t>(backend, path_size);
  count_ = DeviceArray<int32_t>(backend, batch);
  next_root_ = DeviceArray<int32_t>(backend, batch);
  seeds_ = UploadArray<uint64_t>(backend, rows);
  positions_ = UploadArray<int32_t>(backend, rows);
  host_path_ = HostArray<int32_t>(backend, path_size);
  host_count_ = HostArray<int32_t>(backend, batch);
  host_next_root_ = HostArray<int32_t>(backend, batch);
  slots_ = DeviceArray<int32_t>(backend, batch);
  roots_ = DeviceArray<int32_t>(backend, batch);
  sampling_.seeds.resize(static_cast<size_t>(batch));
  for (int32_t b = 0; b < batch; ++b) active_.push_back(b);
}

Session::Busy::Busy(Session& session) : session_(session) {
  session_.context_->activate();
  if (session_.busy_.test_and_set()) {
    throw std::runtime_error("session: in use by another thread; make one session per thread");
  }
}

Session::Sequence& Session::sequence(int32_t b) {
  return sequences_[static_cast<size_t>(checked("sequence", b, 0, batch() - 1))];
}

const Session::Sequence& Session::sequence(int32_t b) const {
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

void Session::set_sampling(Sampling sampling) {
  const auto in_range = [](const char* name, float value, float least, float most) {
    if (value >= least && value <= most) return;
    throw std::invalid_argument(std::string(name) + ": needs a number from " +
                                std::to_string(least) + " to " + std::to_string(most) + ", got " +
                                std::to_string(value));
  };
  in_range("temperature", sampling.temperature, 0, 1e4f);
  in_range("top_p", sampling.top_p, 0, 1);
  in_range("epsilon", sampling.epsilon, 0, 1);
  in_range("delta", sampling.delta, 0, 1e4f);
  checked("top_k", sampling.top_k, 0, model_->config().vocab_size);
  if (sampling.seeds.size() != sequences_.size()) {
    fail("seeds", std::to_string(batch()) + " of them",
         static_cast<int64_t>(sampling.seeds.size()));
  }
  const auto parameters = [](const Sampling& s) {
    return std::make_tuple(s.temperature, s.top_p, s.top_k, s.typical, s.epsilon, s.delta);
  };
  // Seeds are data of a recorded step, the parameters part of it.
  if (parameters(sampling) != parameters(sampling_)) graphs_.clear();
  sampling_ = std::move(sampling);
}

void Session::set_active(std::vector<int32_t> active) {
  if (active.empty()) fail("active", "at least one sequence", 0);
  for (size_t i = 0; i < active.size(); ++i) {
    checked("active", active[i], i == 0 ? 0 : active[i - 1] + 1, batch() - 1);
  }
  active_ = std::move(active);
  phase_ = Phase::kIdle;
}

void Session::set_end_tokens(std::vector<int32_t> tokens) {
  if (tokens == end_tokens_) return;
  graphs_.clear();  // they hold the old ones' address and number
  const Backend& backend = model_->backend();
  const int64_t size = static_cast<int64_t>(tokens.size());
  end_tokens_on_device_ = DeviceArray<int32_t>(backend, size);
  backend.copy_in(*context_, end_tokens_on_device_.data(), tokens.data(),
                  size * static_cast<int64_t>(sizeof(int32_t)));
  end_tokens_ = std::move(tokens);
}

void Session::set_profiling(bool profiling) {
  is_profiling_ = profiling;
  is_replayed_ = replays(*model_, max_nodes_) && !profiling;
  phase_ = Phase::kIdle;
}

void Session::end_phase(Phase phase) {
  if (is_profiling_) model_->backend().synchronize(*context_);
  phase_ = phase;
}

void Session::clear_rows() {
  if (is_uploading_) model_->backend().synchronize(*context_);
  is_uploading_ = false;
  rows_.clear();
}

void Session::reserve_logits(int32_t num_targets) {
  if (!wants_logits()) return;
  const int64_t size = int64_t{num_targets} * model_->config().vocab_size;
  if (size <= logits_.size()) return;
  graphs_.clear();  // they hold the old address
  logits_ = DeviceArray<float>(model_->backend(), size);
}

void Session::forward(const RowTable& table, ForwardOutputs outputs) {
  if (wants_logits()) {
    reserve_logits(outputs.num_targets);
    outputs.logits = logits_.data();
  }
  outputs.hidden = hidden_.data();
  outputs.targets = targets_.data();
  decoder_.forward(*context_, table, cache_.layers(), outputs);
  if (!outputs.logits || outputs.num_targets == 0) return;
  ArgmaxParams argmax;
  argmax.num_rows = outputs.num_targets;
  argmax.width = model_->config().vocab_size;
  argmax.logits = outputs.logits;
  argmax.row_stride = argmax.width;
  argmax.out = targets_.data();
  model_->backend().kernels->argmax(*context_, argmax);
}

int32_t Session::prefill(int32_t b, const int32_t* tokens, int32_t count,
                         std::vector<float>* hidden) {
  Sequence& s = sequence(b);
  const int32_t room = max_length_ - length(b);
  checked("prompt tokens", count, 1, std::max(room, 0));
  for (int32_t i = 0; i < count; ++i) check_token(tokens[i]);
  const Backend& backend = model_->backend();
  const int64_t width = model_->config().hidden_size;
  const int32_t chunk = std::min(kPrefillChunk, decoder_.max_rows());
  if (hidden) hidden->resize(static_cast<size_t>(count * width));
  phase_ = Phase::kIdle;
  verified_logits_ = false;
  s.root = -1;
  s.has_hidden = false;
  for (int32_t begin = 0; begin < count; begin += chunk) {
    const int32_t rows = std::min(chunk, count - begin);
    const bool is_last = begin + rows == count;
    clear_rows();
    rows_.add_chain(b, length(b), tokens + begin, rows);
    ForwardOutputs outputs;
    outputs.num_targets = is_last ? 1 : 0;
    outputs.num_outputs = hidden ? rows : outputs.num_targets;
    outputs.first_output = rows - outputs.num_outputs;
    is_uploading_ = true;
    forward(rows_.upload(*context_), outputs);
    if (hidden) {
      backend.copy_out(*context_, hidden->data() + begin * width, hidden_.data(),
                       rows * width * static_cast<int64_t>(sizeof(float)));
    }
    s.text.insert(s.text.end(), tokens + begin, tokens + begin + rows);
    if (!is_last) continue;
    const int32_t last_row = outputs.num_outputs - 1;
    const int32_t one = 1;
    backend.copy_in(*context_, path_.data(), &last_row, sizeof last_row);
    backend.copy_in(*context_, count_.data(), &one, sizeof one);
    keep_last_hidden(1, 1);
    s.root = decide_prefill_root(b);
    s.has_hidden = true;
  }
  has_prefill_logits_ = wants_logits();
  return s.root;
}

int32_t Session::decide_prefill_root(int32_t b) {
  const Backend& backend = model_->backend();
  if (sampling_.temperature > 0) {
    return sample_row(0, sampling_.seeds[static_cast<size_t>(b)], length(b));
  }
  int32_t root = 0;
  backend.copy_out(*context_, &root, targets_.data(), sizeof root);
  backend.synchronize(*context_);
  return root;
}

void Session::truncate(int32_t b, int32_t length, int32_t root) {
  Sequence& s = sequence(b);
  checked("length", length, 0, this->length(b));
  if (root != -1) check_token(root);
  s.text.resize(static_cast<size_t>(length));
  if (s.ngrams) s.ngrams->truncate(length);
  s.root = root;
  s.has_hidden = false;
  phase_ = Phase::kIdle;
}

void Session::verify() {
  require_phase(Phase::kDrafting, "verify");
  clear_rows();
  is_uploading_ = true;
  if (is_replayed_) {
    replay_step();
  } else {
    for (int32_t b : active_) rows_.add_tree(b, length(b), sequence(b).tree);
    ForwardOutputs outputs;
    outputs.num_outputs = rows_.num_rows();
    outputs.num_targets = rows_.num_rows();
    forward(rows_.upload(*context_), outputs);
  }
  verified_logits_ = wants_logits();
  has_prefill_logits_ = false;
  end_phase(Phase::kVerified);
}

void Session::compact() {
  require_phase(Phase::kAccepted, "compact");
  if (!is_replayed_) finish_step();
  ring_.wait(model_->backend(), *context_);  // the one wait of the step
  is_uploading_ = false;
  take_results();
  end_phase(Phase::kIdle);
}

float* Session::row_of(const DeviceArray<float>& rows, int64_t width, int32_t b,
                       int32_t node) const {
  const auto found = std::find(active_.begin(), active_.end(), b);
  if (found == active_.end()) fail("sequence", "an active one", b);
  const int32_t i = static_cast<int32_t>(found - active_.begin());
  if (i >= rows_.num_sequences()) throw std::logic_error("session: there was no step yet");
  checked("node", node, 0, rows_.num_nodes(i) - 1);
  return rows.data() + (rows_.first_row(i) + node) * width;
}

void Session::copy_row(float* out, const float* row, int64_t width) {
  const Backend& backend = model_->backend();
  backend.copy_out(*context_, out, row, width * static_cast<int64_t>(sizeof(float)));
  backend.synchronize(*context_);
}

void Session::copy_hidden(int32_t b, int32_t node, float* out) {
  const int64_t width = model_->config().hidden_size;
  copy_row(out, row_of(hidden_, width, b, node), width);
}

void Session::copy_logits(int32_t b, int32_t node, float* out) {
  if (!verified_logits_) {
    throw std::logic_error("logits: not kept in the last step; call keep_logits(True) before it");
  }
  const int64_t width = model_->config().vocab_size;
  copy_row(out, row_of(logits_, width, b, node), width);
}

void Session::copy_prefill_logits(float* out) {
  if (!has_prefill_logits_) {
    throw std::logic_error("logits: not kept in the last prefill; call keep_logits(True) before");
  }
  copy_row(out, logits_.data(), model_->config().vocab_size);
}

}  // namespace medusa
