// A session's acceptance phase: which drafted nodes stand.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/checks.h"
#include "engine/session.h"

namespace medusa {

int32_t Session::sample_row(int32_t row, uint64_t seed, int32_t position) {
  const Backend& backend = model_->backend();
  backend.copy_in(*context_, seeds_.device.data(), &seed, sizeof seed);
  backend.copy_in(*context_, positions_.device.data(), &position, sizeof position);
  SampleParams sample;
  sample.num_rows = 1;
  sample.width = model_->config().vocab_size;
  sample.logits = logits_.data() + row * sample.width;
  sample.row_stride = sample.width;
  sample.seeds = seeds_.device.data();
  sample.positions = positions_.device.data();
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
  if (is_replayed_) {
    // The step went through to its end when it was verified.
  } else if (sampling_.temperature <= 0) {
    model_->backend().kernels->accept(*context_, accept_params());
  } else if (!verified_logits_) {
    throw std::logic_error("accept: sampling was set after verify");
  } else if (sampling_.typical) {
    fill_noise_keys();
    accept_typical();
  } else if (model_->backend().samples_along_walk) {
    walk_and_sample();
  } else {
    fill_noise_keys();
    accept_sampled();
  }
  end_phase(Phase::kAccepted);
}

void Session::fill_noise_keys() {
  seeds_.host.clear();
  positions_.host.clear();
  for (int32_t i = 0; i < rows_.num_sequences(); ++i) {
    const int32_t b = active_[static_cast<size_t>(i)];
    const uint64_t seed = sampling_.seeds[static_cast<size_t>(b)];
    if (sampling_.typical) {
      seeds_.host.push_back(seed);
      continue;
    }
    const std::vector<int32_t>& depths = sequence(b).tree.depths();
    const int32_t num_rows = rows_.first_row(i + 1) - rows_.first_row(i);
    for (int32_t node = 0; node < num_rows; ++node) {
      const size_t n = static_cast<size_t>(node);
      seeds_.host.push_back(seed);
      positions_.host.push_back(length(b) + 1 + (n < depths.size() ? depths[n] : 0));
    }
  }
}

void Session::accept_typical() {
  const Backend& backend = model_->backend();
  seeds_.upload(backend, *context_);
  AcceptTypicalParams params;
  params.accept = accept_params();
  params.width = model_->config().vocab_size;
  params.logits = logits_.data();
  params.seeds = seeds_.device.data();
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
  seeds_.upload(backend, *context_);
  positions_.upload(backend, *context_);
  SampleParams sample;
  sample.num_rows = rows_.num_rows();
  sample.width = model_->config().vocab_size;
  sample.logits = logits_.data();
  sample.row_stride = sample.width;
  sample.seeds = seeds_.device.data();
  sample.positions = positions_.device.data();
  sample.temperature = sampling_.temperature;
  sample.top_p = sampling_.top_p;
  sample.top_k = sampling_.top_k;
  sample.out = targets_.data();
  backend.kernels->sample(*context_, sample);
  backend.kernels->accept(*context_, accept_params());
}

void Session::walk_and_sample() {
  const int32_t num_sequences = rows_.num_sequences(), max_path = rows_.max_path();
  for (int32_t i = 0; i < num_sequences; ++i) {
    const int32_t b = active_[static_cast<size_t>(i)];
    const StepTree& tree = sequence(b).tree;
    int32_t* path = host_path_.data() + int64_t{i} * max_path;
    std::fill_n(path, max_path, -1);
    int32_t depth = 0;
    for (int32_t node = 0; node >= 0; ++depth) {
      path[depth] = node;
      const int32_t token =
          sample_row(rows_.first_row(i) + node, sampling_.seeds[static_cast<size_t>(b)],
                     length(b) + depth + 1);
      host_next_root_[i] = token;
      node = tree.child(node, token);
    }
    host_count_[i] = depth;
  }
  const Backend& backend = model_->backend();
  const int64_t bytes = int64_t{num_sequences} * static_cast<int64_t>(sizeof(int32_t));
  backend.copy_in(*context_, path_.data(), host_path_.data(), bytes * max_path);
  backend.copy_in(*context_, count_.data(), host_count_.data(), bytes);
  backend.copy_in(*context_, next_root_.data(), host_next_root_.data(), bytes);
}

}  // namespace medusa
