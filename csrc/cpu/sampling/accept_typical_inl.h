// Typical acceptance: the longest path whose tokens are all typical, then a draw at its end.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// One sequence's walk; arrays over its nodes.
struct TypicalWalk {
  int32_t* depths;  // nodes from the root on, 0: not accepted
  float* totals;    // sum of log p along the path
  float* log_sums;  // log of the softmax's denominator, relative to the largest logit
  float* largest;   // the largest logit; NaN: not looked at yet
  float* bounds;    // min(epsilon, delta * e^-H)

  static int64_t floats(int64_t num_nodes) { return 5 * num_nodes; }

  TypicalWalk(float* memory, int64_t num_nodes)
      : depths(reinterpret_cast<int32_t*>(memory)),
        totals(memory + num_nodes),
        log_sums(memory + 2 * num_nodes),
        largest(memory + 3 * num_nodes),
        bounds(memory + 4 * num_nodes) {}
};

/// Fills log_sums, largest and bounds of a node whose children are in question.
template <typename T>
void look_at(const T* logits, int64_t width, const SamplingRule& rule, int32_t node,
             TypicalWalk& walk) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const float largest = largest_of(logits, 0, width);
  const SoftmaxSums sums = softmax_sums(logits, width, largest, rule.temperature, kNever);
  const double log_sum = std::log(sums.sum);
  const double entropy = log_sum - sums.weighted / sums.sum;
  walk.largest[node] = largest;
  walk.log_sums[node] = static_cast<float>(log_sum);
  walk.bounds[node] = std::min(rule.epsilon, rule.delta * static_cast<float>(std::exp(-entropy)));
}

template <typename T>
void accept_typical_sequence(const AcceptTypicalParams& p, int32_t b, float* memory) {
  const AcceptParams& a = p.accept;
  const SamplingRule rule = p.rules[b];
  if (!rule.typical) return;
  const int64_t first = a.first_rows ? a.first_rows[b] : int64_t{b} * a.max_nodes;
  const int32_t num_nodes = a.num_nodes ? a.num_nodes[b] : a.max_nodes;
  const T* logits = static_cast<const T*>(p.logits) + first * p.width;
  const int32_t* tokens = a.tokens + first;
  const int32_t* parents = a.parents + first;
  int32_t* path = a.path + int64_t{b} * a.max_path;
  std::fill(path, path + a.max_path, -1);
  a.count[b] = 0;
  a.next_root[b] = -1;
  if (num_nodes == 0) return;

  TypicalWalk walk(memory, a.max_nodes);
  std::fill(walk.largest, walk.largest + num_nodes, std::nanf(""));
  walk.depths[0] = 1;
  walk.totals[0] = 0;
  int32_t best = 0;
  for (int32_t node = 1; node < num_nodes; ++node) {
    const int32_t parent = parents[node];
    walk.depths[node] = 0;
    if (parent < 0 || walk.depths[parent] == 0 || walk.depths[parent] == a.max_path) continue;
    const T* row = logits + parent * p.width;
    if (std::isnan(walk.largest[parent])) look_at(row, p.width, rule, parent, walk);
    const float log_p = (to_float(row[tokens[node]]) - walk.largest[parent]) / rule.temperature -
                        walk.log_sums[parent];
    if (!(std::exp(log_p) > walk.bounds[parent])) continue;
    walk.depths[node] = walk.depths[parent] + 1;
    walk.totals[node] = walk.totals[parent] + log_p;
    const bool is_better =
        walk.depths[node] > walk.depths[best] ||
        (walk.depths[node] == walk.depths[best] && walk.totals[node] > walk.totals[best]);
    if (is_better) best = node;
  }

  a.count[b] = walk.depths[best];
  for (int32_t node = best, i = a.count[b]; i > 0; node = parents[node]) path[--i] = node;
  a.next_root[b] = sample_row(logits + best * p.width, p.width, rule, p.seeds[b],
                              p.lengths[b] + a.count[b], memory + TypicalWalk::floats(a.max_nodes));
}

template <typename T>
void accept_typical_sequences(CpuContext& context, const AcceptTypicalParams& p) {
  const int64_t floats = TypicalWalk::floats(p.accept.max_nodes) + sample_scratch_floats(p.width);
  context.parallel_for(p.accept.num_sequences, 1, [&](int64_t b, int64_t, int thread) {
    accept_typical_sequence<T>(p, static_cast<int32_t>(b), context.scratch<float>(thread, floats));
  });
}

inline void accept_typical(Context& base, const AcceptTypicalParams& p) {
  CpuContext& context = cpu_context(base);
  switch (p.dtype) {
    case DType::kBFloat16:
      return accept_typical_sequences<BFloat16>(context, p);
    case DType::kFloat16:
      return accept_typical_sequences<Float16>(context, p);
    default:
      return accept_typical_sequences<float>(context, p);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
