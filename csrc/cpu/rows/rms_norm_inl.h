// RMS normalisation and activation quantisation, row by row.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Rows a thread takes at once: fewer are not worth waking another thread for.
constexpr int64_t kRowGrain = 8;

/// 1 / sqrt(mean(x^2) + epsilon). Four accumulators take turns over whole vectors, are added
/// pairwise, then lanes fold; the last vector is padded with zeros.
inline float inverse_rms(const float* x, int32_t width, float epsilon) {
  constexpr int kAccumulators = 4;
  Vec sums[kAccumulators] = {zero(), zero(), zero(), zero()};
  int32_t i = 0;
  for (; i + kAccumulators * Vec::kSize <= width; i += kAccumulators * Vec::kSize) {
    for (int a = 0; a < kAccumulators; ++a) {
      const Vec v = load(x + i + a * Vec::kSize);
      sums[a] = fma(v, v, sums[a]);
    }
  }
  for (int a = 0; i < width; i += Vec::kSize, ++a) {
    const Vec v = load_partial(x + i, std::min(width - i, Vec::kSize));
    sums[a] = fma(v, v, sums[a]);
  }
  const float total = reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
  return 1.0f / std::sqrt(total / static_cast<float>(width) + epsilon);
}

/// out = x * factor * weight for one row.
inline void normalize_row(const float* x, const float* weight, float factor, int32_t width,
                          float* out) {
  const Vec scale = broadcast(factor);
  int32_t i = 0;
  for (; i + Vec::kSize <= width; i += Vec::kSize) {
    store(load(x + i) * scale * load(weight + i), out + i);
  }
  const int left = width - i;
  store_partial(load_partial(x + i, left) * scale * load_partial(weight + i, left), out + i, left);
}

/// out += x * factor * weight for one row: what normalize_row gives, and one rounding more.
inline void add_normalized_row(const float* x, const float* weight, float factor, int32_t width,
                               float* out) {
  const Vec scale = broadcast(factor);
  for (int32_t i = 0; i < width; i += Vec::kSize) {
    const int count = std::min(width - i, Vec::kSize);
    const Vec y = load_partial(x + i, count) * scale * load_partial(weight + i, count);
    store_partial(load_partial(out + i, count) + y, out + i, count);
  }
}

inline void rms_norm(Context& context, const RmsNormParams& params) {
  CpuContext& cpu = cpu_context(context);
  cpu.parallel_for(params.num_rows, kRowGrain, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = params.x + r * params.width;
      const float factor = inverse_rms(x, params.width, params.epsilon);
      if (params.add_to) {
        add_normalized_row(x, params.weight, factor, params.width,
                           params.add_to + r * params.width);
        continue;
      }
      const bool is_float = params.out.format == kFloatActivations;
      float* copy = params.out_float ? params.out_float + r * params.width : nullptr;
      float* out = params.out.data && is_float ? float_row(params.out, r)
                   : copy                      ? copy
                                               : cpu.scratch<float>(thread, params.width);
      normalize_row(x, params.weight, factor, params.width, out);
      if (copy && copy != out) std::copy(out, out + params.width, copy);
      if (params.out.data && !is_float) write_activations(out, 0, params.width, params.out, r);
    }
  });
}

inline void quantize(Context& context, const QuantizeParams& params) {
  cpu_context(context).parallel_for(
      params.num_rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; ++r) {
          write_activations(params.x + r * params.width, 0, params.width, params.out, r);
        }
      });
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
