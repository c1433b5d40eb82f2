// K and V rows as attention reads them: from the cache, in one run or in pages, into vectors.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kBlock = 64;  // positions per block, and nodes per mask word

static_assert(kPageRows % kBlock == 0, "a page's end cuts no block");

/// K or V rows of one head that lie next to each other: a block in the cache.
template <typename T>
struct BlockRows {
  const T* rows;        // [kBlock, D]
  int64_t stride;       // elements from row to row
  int64_t ahead;        // elements from a row to that of the next block, which is prefetched
  const float* scales;  // [kBlock], int8 only

  const T* row(int64_t i) const { return rows + i * stride; }
  float scale(int64_t i) const { return scales[i]; }
  /// Without the first `d` components of every row.
  BlockRows from(int d) const { return {rows + d, stride, ahead, scales}; }
};

/// K or V rows of one head and slot in the cache, in one run or in pages.
template <typename T>
struct HeadRows {
  const KvCache* cache;
  const T* rows;        // of the head in slot 0, or page 0
  const float* scales;  // likewise, int8 only
  int64_t slot;

  const T* row(int64_t i) const { return rows + cache->row_offset(slot, 0, i); }
  float scale(int64_t i) const { return scales[cache->scale_offset(slot, 0, i)]; }

  /// The block of rows from `start` on, a multiple of kBlock, which no page's end cuts. What comes
  /// next is prefetched: the next block, if it begins before row `end`, else the one from row
  /// `next_head_start` on of the next head; -1: there is none.
  BlockRows<T> block(int64_t start, int64_t end, int64_t next_head_start) const {
    const bool has_next = start + kBlock < end;
    const int64_t head = has_next ? 0 : 1, next = has_next ? start + kBlock : next_head_start;
    BlockRows<T> block = {row(start), cache->row_stride, 0, nullptr};
    if (scales) block.scales = scales + cache->scale_offset(slot, 0, start);
    if (next < 0) return block;
    block.ahead = rows + cache->row_offset(slot, head, next) - block.rows;
    if (scales) {
      const float* next_scales = scales + cache->scale_offset(slot, head, next);
      for (int i = 0; i < kBlock; i += 16) prefetch(next_scales + i);
    }
    return block;
  }
  /// Rows from `first` on, wherever their pages are; nothing is prefetched.
  struct Tail {
    const HeadRows& head;
    int64_t first;
    static constexpr int64_t ahead = 0;

    const T* row(int64_t i) const { return head.row(first + i); }
    float scale(int64_t i) const { return head.scale(first + i); }
  };
  Tail from_row(int64_t first) const { return {*this, first}; }
};

constexpr bool has_scales(const int8_t*) { return true; }
template <typename T>
constexpr bool has_scales(const T*) {
  return false;
}

/// Calls visit(d, columns) for ascending d: lane j of columns[g], float32, is component d of key
/// first + g * kSize + j of `keys`. Lanes after `count` repeat the last key. The next block is on
/// its way while this one is computed with.
template <int kGroups, typename Rows, typename F>
inline void visit_columns(const Rows& keys, int64_t first, int count, int head_size, F&& visit) {
  using T = std::remove_cv_t<std::remove_pointer_t<decltype(keys.row(0))>>;
  constexpr int kPerWord = 4 / sizeof(T);
  const int num_words = head_size / kPerWord;
  const T* rows[kGroups * Vec::kSize];
  alignas(64) float scales[kGroups * Vec::kSize];
  for (int i = 0; i < kGroups * Vec::kSize; ++i) {
    const int64_t row = first + std::min(i, count - 1);
    rows[i] = keys.row(row);
    if (has_scales(rows[i])) scales[i] = keys.scale(row);
  }
  for (int word = 0; word < num_words; word += Vec::kSize) {
    const int words = std::min(Vec::kSize, num_words - word);
    Vec tiles[kGroups][Vec::kSize];
    for (int g = 0; g < kGroups; ++g) {
      for (int i = 0; i < Vec::kSize; ++i) {
        const T* source = rows[g * Vec::kSize + i] + word * kPerWord;
        prefetch(source + keys.ahead);
        tiles[g][i] = words == Vec::kSize ? load_words(source) : load_words_partial(source, words);
      }
      transpose(tiles[g]);
    }
    for (int w = 0; w < words; ++w) {
      for (int i = 0; i < kPerWord; ++i) {
        Vec columns[kGroups];
        for (int g = 0; g < kGroups; ++g) {
          columns[g] = unpack(tiles[g][w], i, rows[0]);
          if (has_scales(rows[0])) columns[g] = columns[g] * load(scales + g * Vec::kSize);
        }
        visit((word + w) * kPerWord + i, columns);
      }
    }
  }
}

/// The first `count` keys as columns: out[d, j], float32, kBlock columns to a row. Columns after
/// `count` are undefined.
template <typename Rows>
void load_keys(const Rows& keys, int count, int head_size, float* out) {
  for (int group = 0; group < count; group += Vec::kSize) {
    visit_columns<1>(keys, group, count - group, head_size, [&](int d, const Vec* column) {
      store(*column, out + int64_t{d} * kBlock + group);
    });
  }
}

/// d … d + kSize - 1 of one V row as float32; lanes after the head size are 0.
template <typename Rows>
inline Vec load_value(const Rows& values, int64_t row, int d, int head_size) {
  const auto* source = values.row(row) + d;
  Vec x = d + Vec::kSize <= head_size ? load(source) : load_partial(source, head_size - d);
  if (has_scales(source)) x = x * broadcast(values.scale(row));
  return x;
}

/// V rows of a block in the cache, converted as they are read, the next block being asked for.
/// kWhole: the head size is a multiple of the vector's.
template <typename T, bool kWhole>
struct CachedValues {
  const BlockRows<T>& values;
  int head_size;

  Vec load(int j, int d) const {
    prefetch(values.row(j) + values.ahead + d);
    if constexpr (kWhole) {
      const T* source = values.row(j) + d;
      Vec x = cpu::MEDUSA_ISA_NAMESPACE::load(source);
      if (has_scales(source)) x = x * broadcast(values.scale(j));
      return x;
    }
    return load_value(values, j, d, head_size);
  }
};

/// V rows of a block as float32, whole vectors each, for many query vectors to read.
struct StoredValues {
  const float* values;
  int64_t stride;  // from row to row

  Vec load(int j, int d) const { return cpu::MEDUSA_ISA_NAMESPACE::load(values + j * stride + d); }
};

/// Asks for the first `count` rows of the next block.
template <typename T>
inline void prefetch_next(const BlockRows<T>& block, int count, int head_size) {
  constexpr int kPerLine = 64 / sizeof(T);
  for (int j = 0; j < count; ++j) {
    for (int d = 0; d < head_size; d += kPerLine) prefetch(block.row(j) + block.ahead + d);
  }
}

/// The first `count` V rows of a block as float32 [count, padded].
template <typename T>
void load_values(const BlockRows<T>& values, int count, int head_size, int padded, float* out) {
  const CachedValues<T, false> cached{values, head_size};
  for (int j = 0; j < count; ++j) {
    for (int d = 0; d < padded; d += Vec::kSize) {
      store(cached.load(j, d), out + int64_t{j} * padded + d);
    }
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
