// What attention needs of Vec beyond vec_generic.h; the other attention_vec_*.h files have the same
// functions. Rows of 16- or 8-bit elements are transposed by 32-bit words, two or four elements at
// a time, and unpacked afterwards.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// p * 2^n for p in [0.5, 2] and integers -160 <= n <= 0; it may flush to 0 below 2^-126.
inline Vec times_exp2(Vec p, Vec n) {
  const Vec lowest = broadcast(-126.0f);
  return zero_unless_at_least(p * exp2_integer(max(n, lowest)), n, lowest);
}

/// kSize words, as they are; only transpose and unpack know what to do with them.
inline Vec load_words(const void* p) {
  Vec out;
  std::memcpy(out.lane, p, sizeof out.lane);
  return out;
}
/// The first n words; the others are 0 and not read.
inline Vec load_words_partial(const void* p, int n) {
  Vec out = zero();
  std::memcpy(out.lane, p, static_cast<size_t>(n) * 4);
  return out;
}

/// The i-th element of every word, as float32.
template <typename T>
inline Vec unpack(Vec words, int i, const T*) {
  return detail::make_vec([&](int lane) {
    T elements[4 / sizeof(T)];
    std::memcpy(elements, &words.lane[lane], 4);
    if constexpr (std::is_integral_v<T>) {
      return static_cast<float>(elements[i]);
    } else {
      return to_float(elements[i]);
    }
  });
}

/// kSize rows of kSize words: word j of row i becomes word i of row j.
inline void transpose(Vec* rows) {
  for (int i = 0; i < Vec::kSize; ++i) {
    for (int j = 0; j < i; ++j) {
      uint32_t a, b;  // as integers: a float register could quieten a NaN
      std::memcpy(&a, &rows[i].lane[j], 4);
      std::memcpy(&b, &rows[j].lane[i], 4);
      std::memcpy(&rows[i].lane[j], &b, 4);
      std::memcpy(&rows[j].lane[i], &a, 4);
    }
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
