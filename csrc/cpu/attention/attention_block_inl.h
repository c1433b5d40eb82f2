// One block of keys against a tile of query vectors: the arithmetic of attention.
//
// Every sum has one order, whatever rows are computed together: a score is the sum, span by span,
// of chains of fused multiply-adds over ascending d, an output a chain over ascending positions,
// and the lane of a key in the sum of its block's weights is its position modulo the block.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kMaxRows = 6;                        // query vectors per register tile
constexpr int kMaxVecs = Vec::kSize == 8 ? 2 : 4;  // by the number of vector registers

/// Long dot products are summed by spans of so many terms, one after another: a single chain of 256
/// would lose twice the accuracy of an ordinary matrix product.
constexpr int kDotSpan = 128;

/// A span's sums join those of the spans before it.
inline void store_score(Vec sum, int first, float* out) {
  store(first == 0 ? sum : load(out) + sum, out);
}

template <int kRows, int kVecs>
inline void scores_tile(const float* q, int head_size, const float* keys, float* out,
                        int64_t out_stride) {
  for (int first = 0; first < head_size; first += kDotSpan) {
    const int end = std::min(first + kDotSpan, head_size);
    Vec sums[kRows][kVecs];
    for (auto& row : sums) {
      for (Vec& sum : row) sum = zero();
    }
    for (int d = first; d < end; ++d) {
      Vec k[kVecs];
      for (int n = 0; n < kVecs; ++n) k[n] = load(keys + int64_t{d} * kBlock + n * Vec::kSize);
      for (int m = 0; m < kRows; ++m) {
        const Vec x = broadcast(q[int64_t{m} * head_size + d]);
        for (int n = 0; n < kVecs; ++n) sums[m][n] = fma(x, k[n], sums[m][n]);
      }
    }
    for (int m = 0; m < kRows; ++m) {
      for (int n = 0; n < kVecs; ++n) {
        store_score(sums[m][n], first, out + m * out_stride + n * Vec::kSize);
      }
    }
  }
}

template <int kRows, int kVecs>
inline void scores_sized(int num_rows, int num_vecs, const float* q, int head_size,
                         const float* keys, float* out, int64_t out_stride) {
  if constexpr (kVecs > 1) {
    if (num_vecs < kVecs) {
      return scores_sized<kRows, kVecs - 1>(num_rows, num_vecs, q, head_size, keys, out,
                                            out_stride);
    }
  }
  if constexpr (kRows > 1) {
    if (num_rows < kRows) {
      return scores_sized<kRows - 1, kVecs>(num_rows, num_vecs, q, head_size, keys, out,
                                            out_stride);
    }
  }
  scores_tile<kRows, kVecs>(q, head_size, keys, out, out_stride);
}

/// out[m, j] = q[m] . keys[:, j] for `count` columns, rounded up to whole vectors.
inline void scores(const float* q, int num_vectors, int head_size, const float* keys, int count,
                   float* out, int64_t out_stride) {
  for (int j = 0; j < count; j += kMaxVecs * Vec::kSize) {
    const int num_vecs = std::min((count - j + Vec::kSize - 1) / Vec::kSize, kMaxVecs);
    for (int m = 0; m < num_vectors; m += kMaxRows) {
      scores_sized<kMaxRows, kMaxVecs>(std::min(num_vectors - m, kMaxRows), num_vecs,
                                       q + int64_t{m} * head_size, head_size, keys + j,
                                       out + m * out_stride + j, out_stride);
    }
  }
}

template <int kRows, typename T>
inline void scores_in_place_sized(const float* q, int num_rows, int head_size,
                                  const BlockRows<T>& keys, int count, float* out) {
  if constexpr (kRows > 1) {
    if (num_rows < kRows) {
      return scores_in_place_sized<kRows - 1>(q, num_rows, head_size, keys, count, out);
    }
  }
  constexpr int kGroups = 2;  // chains of multiply-adds enough to hide their latency
  for (int group = 0; group < count; group += kGroups * Vec::kSize) {
    for (int begin = 0; begin < head_size; begin += kDotSpan) {
      Vec sums[kRows][kGroups];
      for (auto& row : sums) {
        for (Vec& sum : row) sum = zero();
      }
      visit_columns<kGroups>(keys.from(begin), group, count - group,
                             std::min(head_size - begin, kDotSpan), [&](int d, const Vec* columns) {
                               for (int m = 0; m < kRows; ++m) {
                                 const Vec x = broadcast(q[int64_t{m} * head_size + begin + d]);
                                 for (int g = 0; g < kGroups; ++g)
                                   sums[m][g] = fma(x, columns[g], sums[m][g]);
                               }
                             });
      for (int m = 0; m < kRows; ++m) {
        for (int g = 0; g < kGroups; ++g) {
          store_score(sums[m][g], begin, out + m * kBlock + group + g * Vec::kSize);
        }
      }
    }
  }
}

/// The same of keys in the cache, for at most kMaxRows query vectors: too few for the columns to be
/// worth storing. The sums are those of `load_keys` and `scores`, bit by bit.
template <typename T>
void scores_in_place(const float* q, int num_vectors, int head_size, const BlockRows<T>& keys,
                     int count, float* out) {
  scores_in_place_sized<kMaxRows>(q, num_vectors, head_size, keys, count, out);
}

/// 2^x to about one unit in the last place for x <= 0, 1 exactly at 0, and exactly 0 at -infinity.
/// x = n + r with |r| <= 1/2; 2^r by a minimax polynomial.
inline Vec exp2_of(Vec x) {
  const Vec clamped = max(x, broadcast(-160.0f));
  const Vec n = round(clamped);
  const Vec r = clamped - n;
  Vec p = broadcast(1.535335905e-04f);
  p = fma(p, r, broadcast(1.339887502e-03f));
  p = fma(p, r, broadcast(9.618436918e-03f));
  p = fma(p, r, broadcast(5.550332367e-02f));
  p = fma(p, r, broadcast(2.402264774e-01f));
  p = fma(p, r, broadcast(6.931471825e-01f));
  return times_exp2(fma(p, r, broadcast(1.0f)), n);
}

/// The whole vectors that cover [begin, end).
inline int first_vec(int begin) { return begin / Vec::kSize * Vec::kSize; }
inline int end_vec(int end) { return (end + Vec::kSize - 1) / Vec::kSize * Vec::kSize; }

/// The largest of scores [kBlock] in [begin, end), which is not empty. The others in the vectors
/// that cover these become -infinity.
inline float largest_score(float* s, int begin, int end) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const int first = first_vec(begin), last = end_vec(end);
  for (int j = first; j < begin; ++j) s[j] = kNever;
  for (int j = end; j < last; ++j) s[j] = kNever;
  Vec largest = broadcast(kNever);
  for (int j = first; j < last; j += Vec::kSize) largest = max(load(s + j), largest);
  return reduce_max(largest);
}

/// Scores [M, kBlock] of the keys [begins[m], ends[m]) to weights; what lies outside is undefined.
/// Updates the running maxima and sums [M]; scales [M] are what earlier outputs must be multiplied
/// by.
inline void softmax_block(float* scores, int num_vectors, const int* begins, const int* ends,
                          float* maximum, float* sum, float* scales) {
  for (int m = 0; m < num_vectors; ++m) {
    const float old = maximum[m];
    if (begins[m] < ends[m]) {
      maximum[m] = std::max(largest_score(scores + m * kBlock, begins[m], ends[m]), old);
    }
    // Two infinities have no difference, though they are equal.
    scales[m] = old == maximum[m] ? 0.0f : old - maximum[m];
  }
  for (int m = 0; m < num_vectors; m += Vec::kSize) {
    const int count = std::min(num_vectors - m, Vec::kSize);
    store_partial(exp2_of(load_partial(scales + m, count)), scales + m, count);
  }
  for (int m = 0; m < num_vectors; ++m) {
    if (begins[m] >= ends[m]) continue;
    const Vec top = broadcast(maximum[m]);
    Vec total = zero();
    for (int j = first_vec(begins[m]); j < end_vec(ends[m]); j += Vec::kSize) {
      const Vec weight = exp2_of(load(scores + m * kBlock + j) - top);
      store(weight, scores + m * kBlock + j);
      total = total + weight;
    }
    sum[m] = sum[m] * scales[m] + reduce_add(total);
  }
}

template <int kRows, int kVecs, typename Values>
inline void values_tile(const float* weights, const Values& values, int d, int begin, int end,
                        const float* scales, float* out, int64_t stride) {
  Vec sums[kRows][kVecs];
  for (int m = 0; m < kRows; ++m) {
    const Vec scale = broadcast(scales[m]);
    for (int n = 0; n < kVecs; ++n) {
      sums[m][n] = load(out + m * stride + d + n * Vec::kSize) * scale;
    }
  }
  for (int j = begin; j < end; ++j) {
    Vec v[kVecs];
    for (int n = 0; n < kVecs; ++n) {
      v[n] = values.load(j, d + n * Vec::kSize);
    }
    for (int m = 0; m < kRows; ++m) {
      const Vec x = broadcast(weights[m * kBlock + j]);
      for (int n = 0; n < kVecs; ++n) sums[m][n] = fma(x, v[n], sums[m][n]);
    }
  }
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < kVecs; ++n) store(sums[m][n], out + m * stride + d + n * Vec::kSize);
  }
}

template <int kRows, int kVecs, typename Values>
inline void values_sized(int num_rows, int num_vecs, const float* weights, const Values& values,
                         int d, int begin, int end, const float* scales, float* out,
                         int64_t stride) {
  if constexpr (kVecs > 1) {
    if (num_vecs < kVecs) {
      return values_sized<kRows, kVecs - 1>(num_rows, num_vecs, weights, values, d, begin, end,
                                            scales, out, stride);
    }
  }
  if constexpr (kRows > 1) {
    if (num_rows < kRows) {
      return values_sized<kRows - 1, kVecs>(num_rows, num_vecs, weights, values, d, begin, end,
                                            scales, out, stride);
    }
  }
  values_tile<kRows, kVecs>(weights, values, d, begin, end, scales, out, stride);
}

/// out[m] = out[m] * scales[m] + sum of weights[m, j] * values[j] over begin <= j < end, for at
/// most kMaxRows query vectors.
template <typename Values>
void add_values(const float* weights, int num_vectors, const Values& values, int begin, int end,
                const float* scales, float* out, int padded) {
  for (int d = 0; d < padded; d += kMaxVecs * Vec::kSize) {
    values_sized<kMaxRows, kMaxVecs>(num_vectors, std::min((padded - d) / Vec::kSize, kMaxVecs),
                                     weights, values, d, begin, end, scales, out, padded);
  }
}

/// The same where each query vector sees its own range [begins[m], ends[m]).
template <typename Values>
void add_values_ragged(const float* weights, int num_vectors, const Values& values,
                       const int* begins, const int* ends, const float* scales, float* out,
                       int padded) {
  constexpr float kOnes[kMaxRows] = {1, 1, 1, 1, 1, 1};
  const int begin = *std::max_element(begins, begins + num_vectors);
  const int end = *std::min_element(ends, ends + num_vectors);
  const int joint_end = std::max(begin, end);
  for (int m = 0; m < num_vectors; ++m) {
    add_values(weights + m * kBlock, 1, values, begins[m], std::min(begin, ends[m]), scales + m,
               out + int64_t{m} * padded, padded);
  }
  if (begin < end) add_values(weights, num_vectors, values, begin, end, kOnes, out, padded);
  for (int m = 0; m < num_vectors; ++m) {
    add_values(weights + m * kBlock, 1, values, joint_end, ends[m], kOnes,
               out + int64_t{m} * padded, padded);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
