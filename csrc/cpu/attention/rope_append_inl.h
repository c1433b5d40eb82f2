// Rotary position embedding of Q and K, and the append of K and V to the cache.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kMaxHeadSize = 256;

/// x * rsqrt(mean(x^2) + epsilon) * weight, in place.
inline void normalize_head(float* x, const float* weight, int head_size, float epsilon) {
  Vec squares = zero();
  for (int d = 0; d < head_size; d += Vec::kSize) {
    const Vec v = load_partial(x + d, std::min(Vec::kSize, head_size - d));
    squares = fma(v, v, squares);
  }
  const Vec scale =
      broadcast(1.0f / std::sqrt(reduce_add(squares) / static_cast<float>(head_size) + epsilon));
  for (int d = 0; d < head_size; d += Vec::kSize) {
    const int n = std::min(Vec::kSize, head_size - d);
    store_partial(load_partial(x + d, n) * scale * load_partial(weight + d, n), x + d, n);
  }
}

/// Dimension d < D/2 and its partner d + D/2 turn by one angle; `cos_sin` holds D/2 cosines, then
/// D/2 sines.
inline void rotate_head(float* x, const float* cos_sin, int head_size) {
  const int half = head_size / 2;
  for (int d = 0; d < half; d += Vec::kSize) {
    const int n = std::min(Vec::kSize, half - d);
    const Vec low = load_partial(x + d, n), high = load_partial(x + half + d, n);
    const Vec cos = load_partial(cos_sin + d, n), sin = load_partial(cos_sin + half + d, n);
    store_partial(low * cos - high * sin, x + d, n);
    store_partial(high * cos + low * sin, x + half + d, n);
  }
}

template <typename T>
inline void append_head(const float* x, int head_size, T* out, float*) {
  for (int d = 0; d < head_size; d += Vec::kSize) {
    const int n = std::min(Vec::kSize, head_size - d);
    store_partial(load_partial(x + d, n), out + d, n);
  }
}

/// scale = amax / 127, value = x * (127 / amax) to the nearest integer, ties to even. A head whose
/// largest value is too small for 127 / amax to be finite is 0.
inline void append_head(const float* x, int head_size, int8_t* out, float* scale) {
  Vec largest = zero();
  for (int d = 0; d < head_size; d += Vec::kSize) {
    largest = max(abs(load_partial(x + d, std::min(Vec::kSize, head_size - d))), largest);
  }
  const float amax = reduce_max(largest);
  const bool is_zero = !(amax >= kSmallestAmax);
  *scale = is_zero ? 0.0f : amax / 127.0f;
  const Vec inverse = broadcast(is_zero ? 0.0f : 127.0f / amax);
  alignas(64) int8_t bytes[kMaxHeadSize + Vec::kSize];
  for (int d = 0; d < head_size; d += Vec::kSize) {
    const Vec v = load_partial(x + d, std::min(Vec::kSize, head_size - d));
    store_int8(round(v * inverse), bytes + d);
  }
  std::copy(bytes, bytes + head_size, out);
}

/// Head `head` of row `row`: the Q query heads first, then the KV heads (K and V together).
template <typename T>
void rope_append_head(const RopeAppendParams& p, int64_t row, int head) {
  const KvCache& cache = p.cache;
  const int head_size = cache.head_size;
  const int num_heads = p.num_query_heads + 2 * cache.num_kv_heads;
  const float* cos_sin = p.cos_sin + int64_t{p.rows.positions[row]} * head_size;
  float* x = p.qkv + (row * num_heads + head) * head_size;
  const bool is_query = head < p.num_query_heads;
  const float* norm = is_query ? p.q_norm : p.k_norm;
  if (norm) normalize_head(x, norm, head_size, p.epsilon);
  rotate_head(x, cos_sin, head_size);
  if (is_query) return;

  const int kv_head = head - p.num_query_heads;
  const int sequence = p.rows.sequences[row];
  const int64_t slot = p.rows.cache_slots[sequence];
  const int64_t cache_row = int64_t{p.rows.lengths[sequence]} + p.rows.nodes[row];
  const int64_t offset = cache.row_offset(slot, kv_head, cache_row);
  const int64_t scale = cache.scale_offset(slot, kv_head, cache_row);
  append_head(x, head_size, static_cast<T*>(cache.k) + offset,
              cache.k_scales ? cache.k_scales + scale : nullptr);
  append_head(x + int64_t{cache.num_kv_heads} * head_size, head_size,
              static_cast<T*>(cache.v) + offset, cache.v_scales ? cache.v_scales + scale : nullptr);
}

template <typename T>
void rope_append_rows(CpuContext& context, const RopeAppendParams& p) {
  const int heads = p.num_query_heads + p.cache.num_kv_heads;
  constexpr int64_t kHeadsPerTask = 64;
  context.parallel_for(int64_t{p.rows.num_rows} * heads, kHeadsPerTask,
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t i = begin; i < end; ++i) {
                           rope_append_head<T>(p, i / heads, static_cast<int>(i % heads));
                         }
                       });
}

inline void rope_append(Context& base, const RopeAppendParams& p) {
  CpuContext& context = cpu_context(base);
  switch (p.cache.dtype) {
    case DType::kBFloat16:
      return rope_append_rows<BFloat16>(context, p);
    case DType::kFloat16:
      return rope_append_rows<Float16>(context, p);
    case DType::kInt8:
      return rope_append_rows<int8_t>(context, p);
    default:
      return rope_append_rows<float>(context, p);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
