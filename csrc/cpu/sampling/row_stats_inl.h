// Reductions of one row of logits that sampling, candidates and typical acceptance share. Every sum
// has one order: lanes within a chunk, chunks in float64.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kStatsChunk = 256;  // logits whose maximum is kept, to skip them as a whole

inline int64_t num_chunks(int64_t width) { return (width + kStatsChunk - 1) / kStatsChunk; }

/// maxima[c]: the largest number of chunk c, -infinity where there is none. Returns the largest.
template <typename T>
float chunk_maxima(const T* logits, int64_t width, float* maxima) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t c = 0; c < num_chunks(width); ++c) {
    const int64_t begin = c * kStatsChunk;
    maxima[c] = largest_of(logits, begin, std::min(begin + kStatsChunk, width));
    largest = std::max(largest, maxima[c]);
  }
  return largest;
}

struct SoftmaxSums {
  double sum;       // of e = e^((logit - largest) / temperature)
  double weighted;  // of e * (logit - largest) / temperature
};

/// Sums over the logits of at least `threshold`; NaN counts as nothing.
template <typename T>
SoftmaxSums softmax_sums(const T* logits, int64_t width, float largest, float temperature,
                         float threshold) {
  const Vec top = broadcast(largest), divisor = broadcast(temperature);
  const Vec limit = broadcast(threshold), lowest = broadcast(-100.0f);  // e^-100 is 0 here
  SoftmaxSums total = {0, 0};
  for (int64_t begin = 0; begin < width; begin += kStatsChunk) {
    const int64_t end = std::min(begin + kStatsChunk, width);
    Vec sum = zero(), weighted = zero();
    for (int64_t i = begin; i < end; i += Vec::kSize) {
      const int n = static_cast<int>(std::min<int64_t>(Vec::kSize, end - i));
      const Vec x = n == Vec::kSize ? load(logits + i) : load_partial(logits + i, n);
      const Vec z = max((x - top) / divisor, lowest);
      Vec e = zero_unless_at_least(exp(z), x, limit);
      if (n < Vec::kSize) {
        alignas(64) float lanes[Vec::kSize];
        store(e, lanes);
        e = load_partial(lanes, n);
      }
      sum = sum + e;
      weighted = fma(e, z, weighted);
    }
    total.sum += reduce_add(sum);
    total.weighted += reduce_add(weighted);
  }
  return total;
}

/// The numbers of at least `bound`, in ascending order of id, to out; how many there are.
template <typename T>
int64_t gather_at_least(const T* logits, int64_t width, const float* maxima, float bound,
                        float* out) {
  int64_t count = 0;
  for (int64_t c = 0; c < num_chunks(width); ++c) {
    if (!(maxima[c] >= bound)) continue;
    const int64_t end = std::min((c + 1) * kStatsChunk, width);
    for (int64_t i = c * kStatsChunk; i < end; ++i) {
      const float x = to_float(logits[i]);
      if (x >= bound) out[count++] = x;
    }
  }
  return count;
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
