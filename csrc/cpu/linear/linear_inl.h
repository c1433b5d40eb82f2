// Matrix products: panels shared among threads, and what happens to a finished tile.
//
// A thread computes all rows of a panel of outputs while its weights pass through the cache once;
// a tile of sums per row then goes through the epilogue. Nothing is ever summed across threads.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// Rows that share one pass over the weights: their tile stays in the second-level cache.
constexpr int32_t kMaxPassRows = 512;

// ---- epilogues: one row of a finished tile ----

inline void store_row(const LinearParams& params, int64_t panel, const float* tile, int64_t row) {
  for (int v = 0; v < kPanelVecs; ++v) {
    const int64_t n = panel * kPanel + v * Vec::kSize;
    const int count =
        static_cast<int>(std::min<int64_t>(Vec::kSize, params.weight->num_outputs - n));
    if (count <= 0) return;
    float* out = params.out + row * params.out_stride + n;
    Vec y = load(tile + v * Vec::kSize);
    if (params.bias) y = y + load_partial(params.bias + n, count);
    if (params.epilogue == Epilogue::kSiluAdd) y = silu(y);
    if (params.epilogue != Epilogue::kStore) y = load_partial(out, count) + y;
    store_partial(y, out, count);
  }
}

/// silu(gate) * up of one row and panel: kPanel / 2 values.
inline void silu_mul_row(const LinearParams& params, int64_t panel, const float* tile, float* out) {
  constexpr int kHalf = kPanel / 2;
  const int32_t size = params.weight->num_outputs / 2;
  for (int i = 0; i < kHalf; i += Vec::kSize) {
    const int64_t n = panel * kHalf + i;
    const int count =
        static_cast<int>(std::clamp<int64_t>(size - n, 0, std::min(Vec::kSize, kHalf - i)));
    Vec gate = load_partial(tile + i, count), up = load_partial(tile + kHalf + i, count);
    if (params.bias) {
      gate = gate + load_partial(params.bias + n, count);
      up = up + load_partial(params.bias + size + n, count);
    }
    store_partial(silu(gate) * up, out + i, std::min(Vec::kSize, kHalf - i));
  }
}

/// The best output of a row so far; id -1: none yet.
struct Best {
  float value;
  int32_t id;
};

/// Equals go to the lowest id, in whatever order the panels come; NaN is never taken.
inline void argmax_row(const LinearParams& params, int64_t panel, const float* tile, Best& best) {
  const int64_t n = panel * kPanel;
  const int count = static_cast<int>(std::min<int64_t>(kPanel, params.weight->num_outputs - n));
  const Vec lowest = broadcast(-std::numeric_limits<float>::infinity());
  Vec largest = lowest;
  for (int v = 0; v < kPanelVecs; ++v) {
    const int left = std::clamp(count - v * Vec::kSize, 0, Vec::kSize);
    Vec y = load(tile + v * Vec::kSize);
    if (params.bias) y = y + load_partial(params.bias + n + v * Vec::kSize, left);
    if (left < Vec::kSize) {
      float lanes[Vec::kSize];
      store(lowest, lanes);
      store_partial(y, lanes, left);
      y = load(lanes);
    }
    largest = max(y, largest);
  }
  const float top = reduce_max(largest);
  if (best.id >= 0 && (top < best.value || (top == best.value && n > best.id))) return;
  for (int i = 0; i < count; ++i) {
    if ((params.bias ? tile[i] + params.bias[n + i] : tile[i]) == top) {
      best = {top, static_cast<int32_t>(n) + i};
      return;
    }
  }
}

// ---- the passes over the panels ----

/// Computes `group` panels at a time and calls finish(begin, end, tiles, thread) for panels
/// begin … end-1; tiles is [end - begin, rows, kPanel]. Panels of a thread's own share ascend.
template <typename Kernel, typename F>
void for_panels(CpuContext& cpu, const LinearParams& params, int32_t first_row, int32_t rows,
                int64_t group, F&& finish) {
  cpu.parallel_for(
      num_panels(params.weight->num_outputs), group, [&](int64_t begin, int64_t end, int thread) {
        float* tile = cpu.scratch<float>(thread, (end - begin) * rows * kPanel);
        for (int64_t panel = begin; panel < end; ++panel) {
          Kernel::compute(params, panel, first_row, rows, tile + (panel - begin) * rows * kPanel);
        }
        finish(begin, end, tile, thread);
      });
}

template <typename Kernel>
void linear_store(CpuContext& cpu, const LinearParams& params, int32_t first_row, int32_t rows) {
  for_panels<Kernel>(cpu, params, first_row, rows, 1,
                     [&](int64_t panel, int64_t, const float* tile, int) {
                       for (int32_t r = 0; r < rows; ++r) {
                         store_row(params, panel, tile + int64_t{r} * kPanel, first_row + r);
                       }
                     });
}

template <typename Kernel>
void linear_silu_mul(CpuContext& cpu, const LinearParams& params, int32_t first_row, int32_t rows) {
  // As many panels as fill a whole group of activations.
  constexpr int kHalf = kPanel / 2;
  constexpr int64_t kPanels = kGroupSize / kHalf;
  const int64_t size = params.weight->num_outputs / 2;
  for_panels<Kernel>(
      cpu, params, first_row, rows, kPanels,
      [&](int64_t begin, int64_t end, const float* tile, int) {
        const int64_t n = begin * kHalf;
        const int64_t count = std::min((end - begin) * kHalf, size - n);
        for (int32_t r = 0; r < rows; ++r) {
          float values[kGroupSize];
          for (int64_t i = 0; i < end - begin; ++i) {
            silu_mul_row(params, begin + i, tile + (i * rows + r) * kPanel, values + i * kHalf);
          }
          if (params.out_activations.data) {
            write_activations(values, n, count, params.out_activations, first_row + r);
          } else {
            std::copy(values, values + count, params.out + (first_row + r) * params.out_stride + n);
          }
        }
      });
}

template <typename Kernel>
void linear_argmax(CpuContext& cpu, const LinearParams& params, int32_t first_row, int32_t rows) {
  Best* best = cpu.shared_scratch<Best>(int64_t{cpu.num_threads()} * rows);
  std::fill(best, best + int64_t{cpu.num_threads()} * rows, Best{0, -1});
  for_panels<Kernel>(
      cpu, params, first_row, rows, 1, [&](int64_t panel, int64_t, const float* tile, int thread) {
        for (int32_t r = 0; r < rows; ++r) {
          argmax_row(params, panel, tile + int64_t{r} * kPanel, best[int64_t{thread} * rows + r]);
        }
      });
  for (int32_t r = 0; r < rows; ++r) {
    Best winner{-std::numeric_limits<float>::infinity(), -1};
    for (int t = 0; t < cpu.num_threads(); ++t) {
      const Best& b = best[int64_t{t} * rows + r];
      if (b.id < 0) continue;
      if (winner.id < 0 || b.value > winner.value ||
          (b.value == winner.value && b.id < winner.id)) {
        winner = b;
      }
    }
    params.argmax[first_row + r] = std::isfinite(winner.value) ? winner.id : -1;
    if (params.max_value) params.max_value[first_row + r] = winner.value;
  }
}

template <typename Kernel>
void linear_format(CpuContext& cpu, const LinearParams& params) {
  for (int32_t first = 0; first < params.num_rows; first += kMaxPassRows) {
    const int32_t rows = std::min(kMaxPassRows, params.num_rows - first);
    if (params.epilogue == Epilogue::kSiluMul) {
      linear_silu_mul<Kernel>(cpu, params, first, rows);
    } else if (params.epilogue == Epilogue::kArgmax) {
      linear_argmax<Kernel>(cpu, params, first, rows);
    } else {
      linear_store<Kernel>(cpu, params, first, rows);
    }
  }
}

// ---- the product of each format ----

struct FormatKernel {
  WeightFormat format;
  void (*run)(CpuContext&, const LinearParams&);
};

constexpr FormatKernel kFormatKernels[] = {
    {kFloat32Weights, linear_format<FloatKernel<float>>},
    {kBFloat16Weights, linear_format<FloatKernel<BFloat16>>},
    {kFloat16Weights, linear_format<FloatKernel<Float16>>},
    {kInt8Weights, linear_format<QuantizedKernel<kInt8Weights>>},
    {kInt4Weights, linear_format<QuantizedKernel<kInt4Weights>>},
};

/// Null for a format without a kernel.
inline const FormatKernel* find_kernel(const WeightFormat& format) {
  for (const FormatKernel& kernel : kFormatKernels) {
    if (kernel.format == format) return &kernel;
  }
  return nullptr;
}

inline bool supports(const WeightFormat& format) { return find_kernel(format) != nullptr; }

inline void linear(Context& context, const LinearParams& params) {
  find_kernel(params.weight->format)->run(cpu_context(context), params);
}

void fill_linear(KernelTable& table) {
  table.supports = supports;
  table.packed_bytes = packed_bytes;
  table.pack = pack;
  table.activation_bytes = activation_buffer_bytes;
  table.activation_format = activation_format;
  table.embed = embed;
  table.rms_norm = rms_norm;
  table.quantize = quantize;
  table.linear = linear;
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
