// One block of keys against a tile of query vectors: the arithmetic of attention.
//
// Every sum has one order, whatever rows are computed together: a score is a chain of fused
// multiply-adds over ascending d, an output a chain over ascending positions, and the lane of a key
// in the sum of its block's weights is its position modulo the block.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kBlock = 64;                         // positions per block, and nodes per mask word
constexpr int kMaxRows = 6;                        // query vectors per register tile
constexpr int kMaxVecs = Vec::kSize == 8 ? 2 : 4;  // by the number of vector registers

/// K or V rows of one head in the cache.
template <typename T>
struct HeadRows {
  const T* rows;        // [S, D]
  int64_t stride;       // elements from row to row
  const float* scales;  // [S], int8 only

  const T* row(int64_t i) const { return rows + i * stride; }
  Vec scale(int64_t i) const { return broadcast(scales[i]); }
};

constexpr bool kHasScales(const int8_t*) { return true; }
template <typename T>
constexpr bool kHasScales(const T*) {
  return false;
}

/// Keys first … first + count - 1 as columns: out[d, j], float32, kBlock columns to a row. Columns
/// behind `count` are undefined. The next block is on its way while this one is computed with.
template <typename T>
void load_keys(const HeadRows<T>& keys, int64_t first, int count, int head_size, float* out) {
  constexpr int kPerWord = 4 / sizeof(T);
  const int num_words = head_size / kPerWord;
  for (int group = 0; group < count; group += Vec::kSize) {
    const T* rows[Vec::kSize];
    alignas(64) float scales[Vec::kSize];
    for (int i = 0; i < Vec::kSize; ++i) {
      const int64_t row = first + std::min(group + i, count - 1);
      rows[i] = keys.row(row);
      if (kHasScales(rows[i])) scales[i] = keys.scales[row];
    }
    for (int word = 0; word < num_words; word += Vec::kSize) {
      const int words = std::min(Vec::kSize, num_words - word);
      Vec tile[Vec::kSize];
      for (int i = 0; i < Vec::kSize; ++i) {
        const T* source = rows[i] + word * kPerWord;
        prefetch(source + kBlock * keys.stride);
        tile[i] = words == Vec::kSize ? load_words(source) : load_words_partial(source, words);
      }
      transpose(tile);
      for (int w = 0; w < words; ++w) {
        float* column = out + int64_t{(word + w) * kPerWord} * kBlock + group;
        for (int i = 0; i < kPerWord; ++i) {
          Vec x = unpack(tile[w], i, rows[0]);
          if (kHasScales(rows[0])) x = x * load(scales);
          store(x, column + i * kBlock);
        }
      }
    }
  }
}

/// d … d + kSize - 1 of one V row as float32; lanes behind the head size are 0.
template <typename T>
inline Vec load_value(const HeadRows<T>& values, int64_t row, int d, int head_size) {
  const T* source = values.row(row) + d;
  Vec x = d + Vec::kSize <= head_size ? load(source) : load_partial(source, head_size - d);
  if (kHasScales(source)) x = x * values.scale(row);
  return x;
}

/// V rows first … first + count - 1 as float32 [count, padded].
template <typename T>
void load_values(const HeadRows<T>& values, int64_t first, int count, int head_size, int padded,
                 float* out) {
  constexpr int kPerLine = 64 / sizeof(T);
  for (int j = 0; j < count; ++j) {
    const T* next = values.row(first + j + kBlock);
    for (int d = 0; d < head_size; d += kPerLine) prefetch(next + d);
    for (int d = 0; d < padded; d += Vec::kSize) {
      store(load_value(values, first + j, d, head_size), out + int64_t{j} * padded + d);
    }
  }
}

template <int kRows, int kVecs>
inline void scores_tile(const float* q, int head_size, const float* keys, float* out,
                        int64_t out_stride) {
  Vec sums[kRows][kVecs];
  for (auto& row : sums) {
    for (Vec& sum : row) sum = zero();
  }
  for (int d = 0; d < head_size; ++d) {
    Vec k[kVecs];
    for (int n = 0; n < kVecs; ++n) k[n] = load(keys + int64_t{d} * kBlock + n * Vec::kSize);
    for (int m = 0; m < kRows; ++m) {
      const Vec x = broadcast(q[int64_t{m} * head_size + d]);
      for (int n = 0; n < kVecs; ++n) sums[m][n] = fma(x, k[n], sums[m][n]);
    }
  }
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < kVecs; ++n) store(sums[m][n], out + m * out_stride + n * Vec::kSize);
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

/// Scores [kBlock] to weights 2^(score - maximum), 0 outside [begin, end), which is not empty.
/// Updates the running maximum and sum; returns what earlier sums must be multiplied by.
inline float softmax_block(float* s, int begin, int end, float& maximum, float& sum) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  std::fill(s, s + begin, kNever);
  std::fill(s + end, s + kBlock, kNever);
  Vec largest = broadcast(kNever);
  for (int j = 0; j < kBlock; j += Vec::kSize) largest = max(load(s + j), largest);
  const float old = maximum;
  maximum = std::max(reduce_max(largest), old);
  const Vec top = broadcast(maximum);
  Vec total = zero();
  for (int j = 0; j < kBlock; j += Vec::kSize) {
    const Vec weight = exp2_of(load(s + j) - top);
    store(weight, s + j);
    total = total + weight;
  }
  // 2^0 is exactly 1, so the short cut changes no bit.
  const float scale = old == maximum ? 1.0f : reduce_max(exp2_of(broadcast(old - maximum)));
  sum = sum * scale + reduce_add(total);
  return scale;
}

template <int kRows, int kVecs>
inline void values_tile(const float* weights, const float* values, int begin, int end,
                        const float* scales, float* out, int64_t stride) {
  Vec sums[kRows][kVecs];
  for (int m = 0; m < kRows; ++m) {
    const Vec scale = broadcast(scales[m]);
    for (int n = 0; n < kVecs; ++n) {
      sums[m][n] = load(out + m * stride + n * Vec::kSize) * scale;
    }
  }
  for (int j = begin; j < end; ++j) {
    Vec v[kVecs];
    for (int n = 0; n < kVecs; ++n) v[n] = load(values + j * stride + n * Vec::kSize);
    for (int m = 0; m < kRows; ++m) {
      const Vec x = broadcast(weights[m * kBlock + j]);
      for (int n = 0; n < kVecs; ++n) sums[m][n] = fma(x, v[n], sums[m][n]);
    }
  }
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < kVecs; ++n) store(sums[m][n], out + m * stride + n * Vec::kSize);
  }
}

template <int kRows, int kVecs>
inline void values_sized(int num_rows, int num_vecs, const float* weights, const float* values,
                         int begin, int end, const float* scales, float* out, int64_t stride) {
  if constexpr (kVecs > 1) {
    if (num_vecs < kVecs) {
      return values_sized<kRows, kVecs - 1>(num_rows, num_vecs, weights, values, begin, end, scales,
                                            out, stride);
    }
  }
  if constexpr (kRows > 1) {
    if (num_rows < kRows) {
      return values_sized<kRows - 1, kVecs>(num_rows, num_vecs, weights, values, begin, end, scales,
                                            out, stride);
    }
  }
  values_tile<kRows, kVecs>(weights, values, begin, end, scales, out, stride);
}

/// out[m] = out[m] * scales[m] + sum of weights[m, j] * values[j] over begin <= j < end, for at
/// most kMaxRows query vectors.
inline void add_values(const float* weights, int num_vectors, const float* values, int begin,
                       int end, const float* scales, float* out, int padded) {
  for (int d = 0; d < padded; d += kMaxVecs * Vec::kSize) {
    values_sized<kMaxRows, kMaxVecs>(num_vectors, std::min((padded - d) / Vec::kSize, kMaxVecs),
                                     weights, values + d, begin, end, scales, out + d, padded);
  }
}

/// The same where each query vector sees its own range [begins[m], ends[m]).
inline void add_values_ragged(const float* weights, int num_vectors, const float* values,
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
