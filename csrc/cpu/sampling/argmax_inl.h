// The arg-max of float rows.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int64_t kChunk = 1024;  // values between two looks at the running maximum

/// The largest number of x[begin … end-1]; -infinity where there is none.
template <typename T>
float largest_of(const T* x, int64_t begin, int64_t end) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  // max(a, b) is b where either is NaN: the running maximum goes second.
  Vec a = broadcast(kNever), b = a, c = a, d = a;
  int64_t i = begin;
  for (; i + 4 * Vec::kSize <= end; i += 4 * Vec::kSize) {
    a = max(load(x + i), a);
    b = max(load(x + i + Vec::kSize), b);
    c = max(load(x + i + 2 * Vec::kSize), c);
    d = max(load(x + i + 3 * Vec::kSize), d);
  }
  float largest = reduce_max(max(max(a, b), max(c, d)));
  for (; i < end; ++i) {
    const float value = to_float(x[i]);
    if (value > largest) largest = value;
  }
  return largest;
}

/// The lowest id of the largest number; -1 where that is not finite, or all are NaN.
template <typename T>
int32_t argmax_row(const T* x, int64_t width) {
  float best = -std::numeric_limits<float>::infinity();
  int64_t chunk = 0;
  for (int64_t i = 0; i < width; i += kChunk) {
    const float largest = largest_of(x, i, std::min(i + kChunk, width));
    if (largest > best) {
      best = largest;
      chunk = i;
    }
  }
  if (!std::isfinite(best)) return -1;
  int64_t id = chunk;
  while (to_float(x[id]) != best) ++id;
  return static_cast<int32_t>(id);
}

template <typename T>
void argmax_rows(CpuContext& context, const ArgmaxParams& p) {
  const T* logits = static_cast<const T*>(p.logits);
  context.parallel_for(p.num_rows, 1, [&](int64_t row, int64_t, int) {
    p.out[row] = argmax_row(logits + row * p.row_stride, p.width);
  });
}

inline void argmax(Context& base, const ArgmaxParams& p) {
  CpuContext& context = cpu_context(base);
  switch (p.dtype) {
    case DType::kBFloat16:
      return argmax_rows<BFloat16>(context, p);
    case DType::kFloat16:
      return argmax_rows<Float16>(context, p);
    default:
      return argmax_rows<float>(context, p);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
