// A session's acceptance phase: which drafted nodes stand.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "model/checks.h"
#include "model/session.h"

namespace medusa {

int32_t Session::sample_row(int32_t row, uint64_t seed, int32_t position) {
  const Backend& backend = model_->backend();
  backend.copy_in(*context_, seeds_.data(), &seed, sizeof seed);
  backend.copy_in(*context_, positions_.data(), &position, sizeof position);
  SampleParams sample;
  sample.num_rows = 1;
  sample.width = model_->config().vocab_size;
  sample.logits = logits_.data() + row * sample.width;
  sample.row_stride = sample.width;
  sample.seeds = seeds_.data();
  sample.positions = positions_.data();
  sample.temperature = sampling_.temperature;
  sample.top_p = sampling_.top_p;
  sample.top_k = sampling_.top_k;
  sample.out = targets_.data() + row;
  backend.kernels->sample(*context_, sample);
  int32_t token = 0;
  backend.copy_out(*context_, &token, sample.out, sizeof token);
  backend.synchronize(*context_);
  return token;
}

AcceptParams Session::accept_params() {
  AcceptParams params;
  params.num_sequences = rows_.num_sequences();
  params.max_nodes = max_nodes_;
  params.max_path = rows_.max_path();
  params.first_rows = rows_.first_rows();
  params.tokens = rows_.tokens();
  params.targets = targets_.data();
  params.parents = rows_.parents();
  params.num_nodes = rows_.num_nodes();
  params.path = path_.data();
  params.count = count_.data();
  params.next_root = next_root_.data();
  return params;
}

void Session::accept() {
  require_phase(Phase::kVerified, "accept");
  if (sampling_.temperature <= 0) {
    model_->backend().kernels->accept(*context_, accept_params());
  } else if (!verified_logits_) {
    throw std::logic_error("accept: sampling was set after verify");
  } else if (sampling_.typical) {
    accept_typical();
  } else if (model_->backend().samples_along_walk) {
    walk_and_sample();
  } else {
    accept_sampled();
  }
  phase_ = Phase::kAccepted;
}

void Session::accept_typical() {
  const Backend& backend = model_->backend();
  std::vector<uint64_t> seeds;
  for (int32_t b : active_) seeds.push_back(sampling_.seeds[static_cast<size_t>(b)]);
  backend.copy_in(*context_, seeds_.data(), seeds.data(),
                  static_cast<int64_t>(seeds.size() * sizeof(uint64_t)));
  AcceptTypicalParams params;
  params.accept = accept_params();
  params.width = model_->config().vocab_size;
  params.logits = logits_.data();
  params.seeds = seeds_.data();
  params.lengths = rows_.lengths();
  params.temperature = sampling_.temperature;
  params.top_p = sampling_.top_p;
  params.top_k = sampling_.top_k;
  params.epsilon = sampling_.epsilon;
  params.delta = sampling_.delta;
  backend.kernels->accept_typical(*context_, params);
}

void Session::accept_sampled() {
  const Backend& backend = model_->backend();
  std::vector<uint64_t> seeds;
  std::vector<int32_t> positions;
  for (int32_t b : active_) {
    const Sequence& s = sequence(b);
    for (int32_t depth : s.tree.depths()) {
      seeds.push_back(sampling_.seeds[static_cast<size_t>(b)]);
      positions.push_back(length(b) + depth + 1);
    }
  }
  backend.copy_in(*context_, seeds_.data(), seeds.data(),
                  static_cast<int64_t>(seeds.size() * sizeof(uint64_t)));
  backend.copy_in(*context_, positions_.data(), positions.data(),
                  static_cast<int64_t>(positions.size() * sizeof(int32_t)));
  SampleParams sample;
  sample.num_rows = rows_.num_rows();
  sample.width = model_->config().vocab_size;
  sample.logits = logits_.data();
  sample.row_stride = sample.width;
  sample.seeds = seeds_.data();
  sample.positions = positions_.data();
  sample.temperature = sampling_.temperature;
  sample.top_p = sampling_.top_p;
  sample.top_k = sampling_.top_k;
  sample.out = targets_.data();
  backend.kernels->sample(*context_, sample);
  backend.kernels->accept(*context_, accept_params());
}

void Session::walk_and_sample() {
  const int32_t max_path = rows_.max_path();
  host_path_.assign(active_.size() * static_cast<size_t>(max_path), -1);
  host_count_.assign(active_.size(), 0);
  host_next_root_.assign(active_.size(), -1);
  for (size_t i = 0; i < active_.size(); ++i) {
    const int32_t b = active_[i];
    const StepTree& tree = sequence(b).tree;
    int32_t node = 0;
    while (node >= 0) {
      const size_t depth = static_cast<size_t>(host_count_[i]++);
      host_path_[i * static_cast<size_t>(max_path) + depth] = node;
      const int32_t token = sample_row(rows_.first_row(static_cast<int32_t>(i)) + node,
                                       sampling_.seeds[static_cast<size_t>(b)],
                                       length(b) + static_cast<int32_t>(depth) + 1);
      host_next_root_[i] = token;
      node = tree.child(node, token);
    }
  }
  const Backend& backend = model_->backend();
  const auto bytes = [](const std::vector<int32_t>& values) {
    return static_cast<int64_t>(values.size() * sizeof(int32_t));
  };
  backend.copy_in(*context_, path_.data(), host_path_.data(), bytes(host_path_));
  backend.copy_in(*context_, count_.data(), host_count_.data(), bytes(host_count_));
  backend.copy_in(*context_, next_root_.data(), host_next_root_.data(), bytes(host_next_root_));
}

}  // namespace medusa
