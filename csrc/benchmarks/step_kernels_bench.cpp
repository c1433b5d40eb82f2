#include "benchmarks/kernel_bench.h"

namespace medusa::cpu {
namespace {

/// Logits between -8 and 8, of which a few stand out as a language model's do.
std::vector<float> make_logits(int64_t rows, int64_t width) {
  std::vector<float> logits(static_cast<size_t>(rows * width));
  for (int64_t i = 0; i < rows * width; ++i) {
    const float value = sample_value(i * 31 + i / width);
    logits[static_cast<size_t>(i)] = 8 * value * value * value;
  }
  return logits;
}

void argmax(benchmark::State& state, int64_t width, int32_t num_rows) {
  const std::vector<float> logits = make_logits(num_rows, width);
  std::vector<int32_t> out(static_cast<size_t>(num_rows));
  ArgmaxParams params;
  params.num_rows = num_rows;
  params.width = params.row_stride = width;
  params.logits = logits.data();
  params.out = out.data();
  CpuContext context(num_threads());
  for (auto _ : state) table().argmax(context, params);
  set_rate(state, "GB/s", 4.0 * static_cast<double>(num_rows * width));
}

void sample(benchmark::State& state, int64_t width, int32_t num_rows, int32_t top_k, float top_p) {
  const std::vector<float> logits = make_logits(num_rows, width);
  const std::vector<uint64_t> seeds(static_cast<size_t>(num_rows), 7);
  std::vector<int32_t> positions(seeds.size()), out(seeds.size());
  for (size_t r = 0; r < positions.size(); ++r) positions[r] = static_cast<int32_t>(r);
  SampleParams params;
  params.num_rows = num_rows;
  params.width = params.row_stride = width;
  params.logits = logits.data();
  params.seeds = seeds.data();
  params.positions = positions.data();
  params.rules.shared.temperature = 0.8f;
  params.rules.shared.top_k = top_k;
  params.rules.shared.top_p = top_p;
  params.out = out.data();
  CpuContext context(num_threads());
  for (auto _ : state) table().sample(context, params);
  set_rate(state, "GB/s", 4.0 * static_cast<double>(num_rows * width));
}

void candidates(benchmark::State& state, int64_t width, int32_t num_nodes) {
  constexpr int32_t kHeads = 4, kTopK = 10;
  const TreeCase tree(num_nodes, 0);
  const std::vector<float> logits = make_logits(kHeads, width);
  std::vector<int32_t> ranks, depths, roots = {1}, top_ids(kHeads * kTopK);
  for (int32_t i = 0; i < num_nodes; ++i) {
    ranks.push_back((i + 1) % 2);
    depths.push_back(std::min(tree.positions[static_cast<size_t>(i)], kHeads));
  }
  std::vector<int32_t> tokens(ranks.size());
  CandidatesParams params;
  params.num_sequences = 1;
  params.num_heads = kHeads;
  params.width = width;
  params.top_k = kTopK;
  params.num_nodes = num_nodes;
  params.logits = logits.data();
  params.roots = roots.data();
  params.depths = depths.data();
  params.ranks = ranks.data();
  params.top_ids = top_ids.data();
  params.tokens = tokens.data();
  CpuContext context(num_threads());
  for (auto _ : state) table().candidates(context, params);
  set_rate(state, "GB/s", 4.0 * kHeads * static_cast<double>(width));
}

/// A tree whose rightmost path is accepted.
struct AcceptCase {
  explicit AcceptCase(int32_t nodes) : tree(nodes, 0), targets(static_cast<size_t>(nodes), -1) {
    for (int32_t i = 0; 2 * i + 2 < nodes; i = 2 * i + 2)
      targets[static_cast<size_t>(i)] = 2 * i + 2;
    num_nodes = nodes;
    params.num_sequences = 1;
    params.max_nodes = nodes;
    params.max_path = static_cast<int32_t>(path.size());
    params.tokens = tree.tokens.data();
    params.targets = targets.data();
    params.parents = tree.parents.data();
    params.num_nodes = &num_nodes;
    params.path = path.data();
    params.count = &count;
    params.next_root = &next_root;
  }
  AcceptCase(const AcceptCase&) = delete;
  AcceptCase& operator=(const AcceptCase&) = delete;

  TreeCase tree;
  std::vector<int32_t> targets, path = std::vector<int32_t>(8);
  int32_t num_nodes = 0, count = 0, next_root = 0;
  AcceptParams params;
};

void accept(benchmark::State& state, int32_t num_nodes) {
  const AcceptCase accepted(num_nodes);
  CpuContext context(num_threads());
  for (auto _ : state) table().accept(context, accepted.params);
}

void accept_typical(benchmark::State& state, int64_t width, int32_t num_nodes) {
  const AcceptCase accepted(num_nodes);
  const std::vector<float> logits = make_logits(num_nodes, width);
  const uint64_t seed = 7;
  const int32_t length = 0;
  AcceptTypicalParams params;
  params.accept = accepted.params;
  params.width = width;
  params.logits = logits.data();
  params.seeds = &seed;
  params.lengths = &length;
  params.rules.shared.typical = true;
  CpuContext context(num_threads());
  for (auto _ : state) table().accept_typical(context, params);
  set_rate(state, "GB/s", 4.0 * static_cast<double>(num_nodes * width));
}

}  // namespace

void register_step_kernels(const ModelSizes& model) {
  const int64_t width = model.vocab_size;
  const std::string suffix = std::string("/") + model.name;
  for (const int32_t rows : {1, 16, 64}) {
    const std::string size = "/R:" + std::to_string(rows);
    register_benchmark("argmax" + suffix + size,
                       [=](benchmark::State& state) { argmax(state, width, rows); });
    register_benchmark("sample" + suffix + size,
                       [=](benchmark::State& state) { sample(state, width, rows, 0, 1); });
    register_benchmark("sample" + suffix + "/top_k:50" + size,
                       [=](benchmark::State& state) { sample(state, width, rows, 50, 1); });
    register_benchmark("sample" + suffix + "/top_p:0.9" + size,
                       [=](benchmark::State& state) { sample(state, width, rows, 0, 0.9f); });
  }
  for (const int32_t nodes : {16, 64}) {
    const std::string size = "/N:" + std::to_string(nodes);
    register_benchmark("candidates" + suffix + "/heads:4" + size,
                       [=](benchmark::State& state) { candidates(state, width, nodes); });
    register_benchmark("accept" + suffix + size,
                       [=](benchmark::State& state) { accept(state, nodes); });
    register_benchmark("accept_typical" + suffix + size,
                       [=](benchmark::State& state) { accept_typical(state, width, nodes); });
  }
}

}  // namespace medusa::cpu
