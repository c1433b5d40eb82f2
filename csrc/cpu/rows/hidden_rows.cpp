// The copies around Medusa heads: which hidden state they read, and in what form.
#include <algorithm>
#include <cmath>

#include "core/params/heads.h"
#include "cpu/isa/fill.h"

namespace medusa::cpu {
namespace {

void gather_hidden(Context&, const GatherHiddenParams& p) {
  for (int32_t b = 0; b < p.num_sequences; ++b) {
    const int64_t row = p.first_rows[b] + p.path[int64_t{b} * p.max_path + p.count[b] - 1];
    std::copy_n(p.hidden + row * p.width, p.width, p.out + int64_t{p.slots[b]} * p.width);
  }
}

/// In float64: the sum's order is one, and exact enough not to matter.
double mean_square(const float* x, int32_t width) {
  double sum = 0;
  for (int32_t i = 0; i < width; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum / width;
}

void head_inputs(Context&, const HeadInputsParams& p) {
  const int64_t input_width = int64_t{p.width} * (p.root_embedding ? 2 : 1);
  for (int32_t b = 0; b < p.num_sequences; ++b) {
    const float* x = p.hidden + int64_t{p.slots[b]} * p.width;
    float* input = p.inputs + b * input_width;
    std::copy_n(x, p.width, input);
    if (p.root_embedding) {
      const float* e = p.root_embedding + int64_t{b} * p.width;
      const double size = mean_square(e, p.width);
      const float scale =
          size > 0 ? static_cast<float>(std::sqrt(mean_square(x, p.width) / size)) : 0.0f;
      for (int32_t i = 0; i < p.width; ++i) input[p.width + i] = e[i] * scale;
    }
    for (int32_t k = 0; k < p.num_heads; ++k) {
      std::copy_n(x, p.width, p.blocks + (int64_t{b} * p.num_heads + k) * p.width);
    }
  }
}

}  // namespace

void fill_heads(KernelTable& table) {
  table.gather_hidden = gather_hidden;
  table.head_inputs = head_inputs;
}

}  // namespace medusa::cpu
