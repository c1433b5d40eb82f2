// Sampling as an arg-max of logit / temperature + Gumbel noise.
//
// top_k keeps the logits of at least the k-th largest; top_p then keeps those of at least the
// largest threshold at which their probabilities, among what top_k kept, reach top_p. Ties stay.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// One row of logits and memory for its reductions.
template <typename T>
struct SampledRow {
  const T* logits;
  int64_t width;
  float largest;
  const float* maxima;  // [num_chunks(width)]
  float* buffer;        // [width]
};

inline int64_t sample_scratch_floats(int64_t width) { return width + num_chunks(width); }

/// The k-th largest number, or the smallest where there are fewer.
template <typename T>
float top_k_threshold(const SampledRow<T>& row, int64_t k) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  // At least k numbers reach the k-th largest maximum of chunks, and few reach further down.
  float bound = kNever;
  const int64_t chunks = num_chunks(row.width);
  if (k <= chunks) {
    std::copy(row.maxima, row.maxima + chunks, row.buffer);
    std::nth_element(row.buffer, row.buffer + (k - 1), row.buffer + chunks, std::greater<>());
    bound = row.buffer[k - 1];
  }
  const int64_t count = gather_at_least(row.logits, row.width, row.maxima, bound, row.buffer);
  const int64_t last = std::min(k, count) - 1;
  if (last < 0) return kNever;
  std::nth_element(row.buffer, row.buffer + last, row.buffer + count, std::greater<>());
  return row.buffer[last];
}

/// The largest number at which the probabilities of all numbers of at least it reach top_p.
template <typename T>
float top_p_threshold(const SampledRow<T>& row, float temperature, float top_p, float floor) {
  const double goal =
      top_p * softmax_sums(row.logits, row.width, row.largest, temperature, floor).sum;
  // Most of the mass is near the top: look there first, then at ever more.
  for (float reach = 4;; reach *= 4) {
    const float bound = std::max(row.largest - reach * temperature, floor);
    const int64_t count = gather_at_least(row.logits, row.width, row.maxima, bound, row.buffer);
    std::sort(row.buffer, row.buffer + count, std::greater<>());
    double mass = 0;
    for (int64_t i = 0; i < count; ++i) {
      mass += std::exp((static_cast<double>(row.buffer[i]) - row.largest) / temperature);
      if (mass >= goal) return row.buffer[i];
    }
    // Rounding may leave the goal just out of reach of everything there is.
    if (bound <= floor || reach > 100) return count > 0 ? row.buffer[count - 1] : floor;
  }
}

/// No noise of these bits is larger: gumbel(bits) <= -log(u), and u >= 2^floor(log2(bits)) / 2^32.
inline float noise_bound(uint32_t bits) {
  const int octaves = bits == 0 ? 33 : __builtin_clz(bits) + 1;
  return static_cast<float>(octaves) * 0.6932f + 1e-3f;
}

/// Bits from which on noise is smaller than `least`: 2^(33 - octaves) of the octaves that reach it.
inline uint64_t noise_limit(float least) {
  int octaves = 1;
  while (octaves <= 33 && static_cast<float>(octaves) * 0.6932f + 1e-3f < least) ++octaves;
  return octaves <= 33 ? uint64_t{1} << (33 - octaves) : 0;
}

/// The best token of a row so far.
struct Draw {
  float value = -std::numeric_limits<float>::infinity();
  int64_t token = -1;
};

/// The tokens of one chunk against the best so far. Their noise is made in vectors, and nearly all
/// of it is too small, which is seen by runs of tokens.
template <typename T>
void draw_from_chunk(const SampledRow<T>& row, int64_t chunk, uint64_t key, float temperature,
                     float threshold, Draw& best) {
  constexpr int kRun = 16;
  const int64_t begin = chunk * kStatsChunk, end = std::min(begin + kStatsChunk, row.width);
  uint32_t bits[kStatsChunk];
  for (int i = 0; i < kStatsChunk; ++i) bits[i] = noise_bits(key, static_cast<int32_t>(begin) + i);
  // What the chunk's largest logit is short of, and less than that by any rounding errors.
  const float gap = best.value - row.maxima[chunk] / temperature;
  const uint64_t limit = noise_limit(gap - 0.01f - 1e-6f * std::fabs(best.value));
  for (int64_t i = begin; i < end; i += kRun) {
    int num_below = 0;
    for (int j = 0; j < kRun; ++j) num_below += bits[i - begin + j] < limit;
    if (num_below == 0) continue;
    for (int64_t token = i; token < std::min(i + kRun, end); ++token) {
      const float x = to_float(row.logits[token]);
      const float z = x / temperature;
      if (!(x >= threshold) || z + noise_bound(bits[token - begin]) < best.value) continue;
      const float value = z + gumbel(bits[token - begin]);
      if (value > best.value || (value == best.value && token < best.token) || best.token < 0) {
        best = {value, token};
      }
    }
  }
}

template <typename T>
int32_t draw(const SampledRow<T>& row, uint64_t key, float temperature, float threshold) {
  constexpr float kMaxNoise = 22.9f;
  const int64_t chunks = num_chunks(row.width);
  const int64_t first = std::max_element(row.maxima, row.maxima + chunks) - row.maxima;
  Draw best;
  // The chunk of the largest logit goes first: what it sets as best rules most others out.
  for (int64_t step = 0; step < chunks; ++step) {
    const int64_t c = step == 0 ? first : step <= first ? step - 1 : step;
    const float chunk_bound = row.maxima[c] / temperature + kMaxNoise;
    if (!(row.maxima[c] >= threshold) || chunk_bound < best.value) continue;
    draw_from_chunk(row, c, key, temperature, threshold, best);
  }
  return static_cast<int32_t>(best.token);
}

/// `memory` holds sample_scratch_floats(width) floats.
template <typename T>
int32_t sample_row(const T* logits, int64_t width, const SamplingRule& rule, uint64_t seed,
                   int32_t position, float* memory) {
  float* maxima = memory;
  const float largest = chunk_maxima(logits, width, maxima);
  // Without a finite maximum there is no distribution to draw from: -1.
  if (rule.temperature <= 0 || !std::isfinite(largest)) return argmax_row(logits, width);
  const SampledRow<T> row = {logits, width, largest, maxima, memory + num_chunks(width)};
  float threshold = std::numeric_limits<float>::lowest();
  if (rule.top_k > 0 && rule.top_k < width) threshold = top_k_threshold(row, rule.top_k);
  if (rule.top_p < 1) threshold = top_p_threshold(row, rule.temperature, rule.top_p, threshold);
  return draw(row, noise_key(seed, position), rule.temperature, threshold);
}

template <typename T>
void sample_rows(CpuContext& context, const SampleParams& p) {
  const T* logits = static_cast<const T*>(p.logits);
  context.parallel_for(p.num_rows, 1, [&](int64_t row, int64_t, int thread) {
    float* memory = context.scratch<float>(thread, sample_scratch_floats(p.width));
    p.out[row] = sample_row(logits + row * p.row_stride, p.width, p.rules[row], p.seeds[row],
                            p.positions[row], memory);
  });
}

inline void sample(Context& base, const SampleParams& p) {
  CpuContext& context = cpu_context(base);
  switch (p.dtype) {
    case DType::kBFloat16:
      return sample_rows<BFloat16>(context, p);
    case DType::kFloat16:
      return sample_rows<Float16>(context, p);
    default:
      return sample_rows<float>(context, p);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
