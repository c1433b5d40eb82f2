#include "engine/sampler.h"

#include <algorithm>
#include <string>

#include "core/checks.h"

namespace medusa {

SamplingRule checked_rule(const SamplingRule& rule, int32_t vocab_size) {
  const auto in_range = [](const char* name, float value, float least, float most) {
    if (value >= least && value <= most) return;
    fail(name, "a number from " + std::to_string(least) + " to " + std::to_string(most),
         std::to_string(value));
  };
  in_range("temperature", rule.temperature, 0, 1e4f);
  in_range("top_p", rule.top_p, 0, 1);
  in_range("epsilon", rule.epsilon, 0, 1);
  in_range("delta", rule.delta, 0, 1e4f);
  checked("top_k", rule.top_k, 0, vocab_size);
  return rule;
}

Sampler::Sampler(const Backend& backend, int32_t vocab_size, int32_t max_sequences,
                 int32_t max_nodes)
    : backend_(&backend), vocab_size_(vocab_size), max_nodes_(max_nodes) {
  path_ = DeviceArray<int32_t>(backend, int64_t{max_sequences} * max_nodes);
  count_ = DeviceArray<int32_t>(backend, max_sequences);
  next_root_ = DeviceArray<int32_t>(backend, max_sequences);
  rules_ = UploadArray<SamplingRule>(backend, max_sequences);
  seeds_ = UploadArray<uint64_t>(backend, max_sequences);
  drawn_ = DeviceArray<int32_t>(backend, 2);
  host_path_.resize(static_cast<size_t>(max_nodes));
  const int64_t max_rows = path_.size();
  targets_ = DeviceArray<int32_t>(backend, max_rows);
  row_rules_ = UploadArray<SamplingRule>(backend, max_rows);
  row_seeds_ = UploadArray<uint64_t>(backend, max_rows);
  row_positions_ = UploadArray<int32_t>(backend, max_rows);
}

SamplingKinds Sampler::kinds(const std::vector<Sequence*>& sequences) {
  SamplingKinds kinds;
  for (const Sequence* sequence : sequences) {
    const SamplingRule& rule = sequence->rule;
    const bool draws = rule.temperature > 0;
    kinds.greedy |= !draws;
    kinds.drawn |= draws && !rule.typical;
    kinds.typical |= draws && rule.typical;
    kinds.filters |= draws && rule.filters();
  }
  return kinds;
}

void Sampler::begin(const StepRows& rows, const std::vector<Sequence*>& sequences) {
  sequences_ = &sequences;
  kinds_ = kinds(sequences);
  rules_.host.clear();
  seeds_.host.clear();
  row_rules_.host.clear();
  row_seeds_.host.clear();
  row_positions_.host.clear();
  for (size_t i = 0; i < sequences.size(); ++i) {
    rules_.host.push_back(sequences[i]->rule);
    seeds_.host.push_back(sequences[i]->seed);
    if (kinds_.drawn) add_row_keys(rows, static_cast<int32_t>(i), *sequences[i]);
  }
}

void Sampler::add_row_keys(const StepRows& rows, int32_t i, const Sequence& sequence) {
  SamplingRule rule = sequence.rule;
  if (rule.typical) rule.temperature = 0;  // its targets are not used: the cheapest will do
  const std::vector<int32_t>& depths = sequence.tree.depths();
  const int32_t num_rows = rows.first_row(i + 1) - rows.first_row(i);
  for (int32_t node = 0; node < num_rows; ++node) {
    const size_t n = static_cast<size_t>(node);
    row_rules_.host.push_back(rule);
    row_seeds_.host.push_back(sequence.seed);
    row_positions_.host.push_back(sequence.root_position() + 1 +
                                  (n < depths.size() ? depths[n] : 0));
  }
}

AcceptParams Sampler::accept_params(const StepRows& rows) const {
  AcceptParams params;
  params.num_sequences = static_cast<int32_t>(rules_.host.size());
  params.max_nodes = max_nodes_;
  params.max_path = rows.max_path();
  params.first_rows = rows.first_rows();
  params.tokens = rows.tokens();
  params.targets = targets_.data();
  params.parents = rows.parents();
  params.num_nodes = rows.num_nodes();
  params.path = path_.data();
  params.count = count_.data();
  params.next_root = next_root_.data();
  return params;
}

void Sampler::accept(Context& context, const StepRows& rows, const float* logits) {
  const bool walks_on_host = kinds_.drawn && backend_->samples_along_walk;
  const bool samples_rows = kinds_.drawn && !walks_on_host;
  if (samples_rows) sample_rows(context, rows, logits);
  if (kinds_.greedy || samples_rows) backend_->kernels->accept(context, accept_params(rows));
  if (walks_on_host) walk_and_sample(context, rows, logits);
  if (kinds_.typical) accept_typical(context, rows, logits);
}

void Sampler::accept_typical(Context& context, const StepRows& rows, const float* logits) {
  rules_.upload(*backend_, context);
  seeds_.upload(*backend_, context);
  AcceptTypicalParams params;
  params.accept = accept_params(rows);
  params.width = vocab_size_;
  params.logits = logits;
  params.seeds = seeds_.device.data();
  params.lengths = rows.lengths();
  params.rules.own = rules_.device.data();
  params.rules.any_filters = kinds_.filters;
  backend_->kernels->accept_typical(context, params);
}

void Sampler::sample_rows(Context& context, const StepRows& rows, const float* logits) {
  row_rules_.upload(*backend_, context);
  row_seeds_.upload(*backend_, context);
  row_positions_.upload(*backend_, context);
  SampleParams sample;
  sample.num_rows = rows.first_row(static_cast<int32_t>(rules_.host.size()));
  sample.width = vocab_size_;
  sample.logits = logits;
  sample.row_stride = sample.width;
  sample.seeds = row_seeds_.device.data();
  sample.positions = row_positions_.device.data();
  sample.rules.own = row_rules_.device.data();
  sample.rules.any_filters = kinds_.filters;
  sample.out = targets_.data();
  backend_->kernels->sample(context, sample);
}

int32_t Sampler::sample_row(Context& context, const float* logits, int32_t i, int32_t position) {
  backend_->copy_in(context, drawn_.data() + 1, &position, sizeof position);
  SampleParams sample;
  sample.num_rows = 1;
  sample.width = vocab_size_;
  sample.logits = logits;
  sample.row_stride = sample.width;
  sample.seeds = seeds_.device.data() + i;
  sample.positions = drawn_.data() + 1;
  sample.rules.shared = rules_.host[i];
  sample.out = drawn_.data();
  backend_->kernels->sample(context, sample);
  int32_t token = 0;
  backend_->copy_out(context, &token, sample.out, sizeof token);
  backend_->synchronize(context);
  return token;
}

void Sampler::walk_and_sample(Context& context, const StepRows& rows, const float* logits) {
  seeds_.upload(*backend_, context);
  const int32_t max_path = rows.max_path();
  const int64_t path_bytes = int64_t{max_path} * static_cast<int64_t>(sizeof(int32_t));
  for (int32_t i = 0; i < rules_.host.size(); ++i) {
    if (rules_.host[i].temperature <= 0 || rules_.host[i].typical) continue;
    const Sequence& sequence = *(*sequences_)[static_cast<size_t>(i)];
    std::fill_n(host_path_.begin(), max_path, -1);
    int32_t depth = 0;
    int32_t token = -1;
    for (int32_t node = 0; node >= 0; node = sequence.tree.child(node, token)) {
      host_path_[static_cast<size_t>(depth++)] = node;
      const int64_t row = rows.first_row(i) + node;
      token = sample_row(context, logits + row * vocab_size_, i, sequence.root_position() + depth);
    }
    backend_->copy_in(context, path_.data() + int64_t{i} * max_path, host_path_.data(), path_bytes);
    backend_->copy_in(context, count_.data() + i, &depth, sizeof depth);
    backend_->copy_in(context, next_root_.data() + i, &token, sizeof token);
  }
}

}  // namespace medusa
