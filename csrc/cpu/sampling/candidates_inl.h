// The best tokens of every Medusa head, and the tokens of a tree's nodes.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kMaxTopK = 32;

/// The k best ids so far, best first: larger logits, then lower ids. NaN comes after every number.
struct TopK {
  float values[kMaxTopK];
  int32_t ids[kMaxTopK];
  int count = 0;
  int k;

  explicit TopK(int top_k) : k(top_k) {}

  /// What an id must exceed to get in; ids are offered in ascending order.
  float bound() const {
    return count < k ? -std::numeric_limits<float>::infinity() : values[k - 1];
  }

  void insert(float value, int32_t id) {
    int i = count < k ? count++ : k - 1;
    for (; i > 0 && value > values[i - 1]; --i) {
      values[i] = values[i - 1];
      ids[i] = ids[i - 1];
    }
    values[i] = value;
    ids[i] = id;
  }
};

template <typename T>
TopK top_k_of(const T* logits, int64_t width, int k) {
  TopK top(k);
  for (int64_t begin = 0; begin < width; begin += kStatsChunk) {
    const int64_t end = std::min(begin + kStatsChunk, width);
    if (top.count == k && !(largest_of(logits, begin, end) > top.bound())) continue;
    for (int64_t i = begin; i < end; ++i) {
      const float x = to_float(logits[i]);
      if (x > top.bound()) top.insert(x, static_cast<int32_t>(i));
    }
  }
  // Fewer than k logits above -infinity: fill up with those at it, then with NaN.
  for (int pass = 0; pass < 2 && top.count < k; ++pass) {
    for (int64_t i = 0; i < width && top.count < k; ++i) {
      const float x = to_float(logits[i]);
      const bool is_nan = std::isnan(x);
      if (pass == 0 ? !is_nan && std::isinf(x) && x < 0 : is_nan) {
        top.values[top.count] = x;
        top.ids[top.count++] = static_cast<int32_t>(i);
      }
    }
  }
  return top;
}

template <typename T>
void candidates_of_head(const CandidatesParams& p, int64_t head) {
  const T* logits = static_cast<const T*>(p.logits) + head * p.width;
  const TopK top = top_k_of(logits, p.width, p.top_k);
  for (int i = 0; i < p.top_k; ++i) {
    p.top_ids[head * p.top_k + i] = p.token_map ? p.token_map[top.ids[i]] : top.ids[i];
  }
  if (!p.top_log_probs) return;
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const double sum = softmax_sums(logits, p.width, top.values[0], 1.0f, kNever).sum;
  for (int i = 0; i < p.top_k; ++i) {
    const double shifted = static_cast<double>(top.values[i]) - top.values[0];
    p.top_log_probs[head * p.top_k + i] = static_cast<float>(shifted - std::log(sum));
  }
}

template <typename T>
void candidates_of_heads(CpuContext& context, const CandidatesParams& p) {
  context.parallel_for(int64_t{p.num_sequences} * p.num_heads, 1,
                       [&](int64_t head, int64_t, int) { candidates_of_head<T>(p, head); });
  for (int32_t b = 0; b < p.num_sequences; ++b) {
    const int32_t* top_ids = p.top_ids + int64_t{b} * p.num_heads * p.top_k;
    int32_t* tokens = p.tokens + int64_t{b} * p.num_nodes;
    for (int32_t node = 0; node < p.num_nodes; ++node) {
      const int32_t depth = p.depths[node];
      tokens[node] = depth == 0 ? p.roots[b] : top_ids[(depth - 1) * p.top_k + p.ranks[node]];
    }
  }
}

inline void candidates(Context& base, const CandidatesParams& p) {
  CpuContext& context = cpu_context(base);
  switch (p.dtype) {
    case DType::kBFloat16:
      return candidates_of_heads<BFloat16>(context, p);
    case DType::kFloat16:
      return candidates_of_heads<Float16>(context, p);
    default:
      return candidates_of_heads<float>(context, p);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
