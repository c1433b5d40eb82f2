// One block of keys against a tile of query vectors: the arithmetic of attention.
//
// Every sum has one order, whatever rows are computed together: a score is the sum, span by span,
// of chains of fused multiply-adds over ascending d, an output a chain over ascending positions,
// and the lane of a key in the sum of its block's weights is its position modulo the block.
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
  /// Without the first `d` components of every row.
  HeadRows from(int d) const { return {rows + d, stride, scales}; }
};

constexpr bool kHasScales(const int8_t*) { return true; }
template <typename T>
constexpr bool kHasScales(const T*) {
  return false;
}

/// Calls visit(d, columns) for ascending d: lane j of columns[g], float32, is component d of key
/// first + g * kSize + j. Lanes behind `count` repeat the last key. The next block is on its way
/// while this one is computed with.
template <int kGroups, typename T, typename F>
inline void visit_columns(const HeadRows<T>& keys, int64_t first, int count, int head_size,
                          F&& visit) {
  constexpr int kPerWord = 4 / sizeof(T), kPerLine = 64 / sizeof(T);
  const int num_words = head_size / kPerWord;
  const T* rows[kGroups * Vec::kSize];
  alignas(64) float scales[kGroups * Vec::kSize];
  for (int i = 0; i < kGroups * Vec::kSize; ++i) {
    const int64_t row = first + std::min(i, count - 1);
    rows[i] = keys.row(row);
    for (int d = 0; d < head_size; d += kPerLine) prefetch(rows[i] + kBlock * keys.stride + d);
    if (kHasScales(rows[i])) scales[i] = keys.scales[row];
  }
  for (int word = 0; word < num_words; word += Vec::kSize) {
    const int words = std::min(Vec::kSize, num_words - word);
    Vec tiles[kGroups][Vec::kSize];
    for (int g = 0; g < kGroups; ++g) {
      for (int i = 0; i < Vec::kSize; ++i) {
        const T* source = rows[g * Vec::kSize + i] + word * kPerWord;
        tiles[g][i] = words == Vec::kSize ? load_words(source) : load_words_partial(source, words);
      }
      transpose(tiles[g]);
    }
    for (int w = 0; w < words; ++w) {
      for (int i = 0; i < kPerWord; ++i) {
        Vec columns[kGroups];
        for (int g = 0; g < kGroups; ++g) {
          columns[g] = unpack(tiles[g][w], i, rows[0]);
          if (kHasScales(rows[0])) columns[g] = columns[g] * load(scales + g * Vec::kSize);
        }
        visit((word + w) * kPerWord + i, columns);
      }
    }
  }
}

/// Keys first … first + count - 1 as columns: out[d, j], float32, kBlock columns to a row. Columns
/// behind `count` are undefined.
template <typename T>
void load_keys(const HeadRows<T>& keys, int64_t first, int count, int head_size, float* out) {
  for (int group = 0; group < count; group += Vec::kSize) {
    visit_columns<1>(keys, first + group, count - group, head_size, [&](int d, const Vec* column) {
      store(*column, out + int64_t{d} * kBlock + group);
    });
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

/// V rows of a block in the cache, converted as they are read, the next block being asked for.
/// kWhole: the head size is a multiple of the vector's.
template <typename T, bool kWhole>
struct CachedValues {
  const HeadRows<T>& values;
  int64_t first;
  int head_size;

  Vec load(int j, int d) const {
    prefetch(values.row(first + j + kBlock) + d);
    if constexpr (kWhole) {
      const T* source = values.row(first + j) + d;
      Vec x = cpu::MEDUSA_ISA_NAMESPACE::load(source);
      if (kHasScales(source)) x = x * values.scale(first + j);
      return x;
    }
    return load_value(values, first + j, d, head_size);
  }
};

/// V rows of a block as float32 [kBlock, padded], for many query vectors to read.
struct StoredValues {
  const float* values;
  int padded;

  Vec load(int j, int d) const { return cpu::MEDUSA_ISA_NAMESPACE::load(values + j * padded + d); }
};

/// V rows first … first + count - 1 as float32 [count, padded].
template <typename T>
void load_values(const HeadRows<T>& values, int64_t first, int count, int head_size, int padded,
                 float* out) {
  const CachedValues<T, false> cached{values, first, head_size};
  for (int j = 0; j < count; ++j) {
    for (int d = 0; d < padded; d += Vec::kSize) {
      store(cached.load(j, d), out + int64_t{j} * padded + d);
    }
  }
}

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
                                  const HeadRows<T>& keys, int64_t first, int count, float* out) {
  if constexpr (kRows > 1) {
    if (num_rows < kRows) {
      return scores_in_place_sized<kRows - 1>(q, num_rows, head_size, keys, first, count, out);
    }
  }
  constexpr int kGroups = 2;  // chains of multiply-adds enough to hide their latency
  for (int group = 0; group < count; group += kGroups * Vec::kSize) {
    for (int begin = 0; begin < head_size; begin += kDotSpan) {
      Vec sums[kRows][kGroups];
      for (auto& row : sums) {
        for (Vec& sum : row) sum = zero();
      }
      visit_columns<kGroups>(keys.from(begin), first + group, count - group,
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
void scores_in_place(const float* q, int num_vectors, int head_size, const HeadRows<T>& keys,
                     int64_t first, int count, float* out) {
  scores_in_place_sized<kMaxRows>(q, num_vectors, head_size, keys, first, count, out);
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
