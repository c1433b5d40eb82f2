// Where a step's numbers stop being finite: the search after logits that decide no token.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/step.h"

namespace medusa {
namespace {

constexpr int32_t kNowhere = -2;

/// The first of `num_rows` rows of `width` numbers with one that is not finite; -1: none.
int32_t first_broken_row(const std::vector<float>& values, int32_t num_rows, int64_t width) {
  const auto end = values.begin() + num_rows * width;
  const auto broken = std::find_if(values.begin(), end, [](float x) { return !std::isfinite(x); });
  return broken == end ? -1 : static_cast<int32_t>((broken - values.begin()) / width);
}

/// Whether a matrix of this layer reads float16 numbers, or the cache holds such.
bool uses_float16(const Model& model, int32_t layer, const KvCache& cache) {
  if (cache.dtype == DType::kFloat16) return true;
  const LayerWeights& weights = model.layers[static_cast<size_t>(std::max(layer, 0))];
  for (const Matrix* matrix : {&weights.o, &weights.gate_up, &weights.down}) {
    const KernelTable& kernels = *model.backend().kernels;
    if (kernels.activation_format(matrix->packed.format).type == DType::kFloat16) return true;
  }
  return false;
}

}  // namespace

std::string Step::failure(const Sequence& s) {
  const Backend& backend = model_->backend();
  const int64_t width = model_->config().hidden_size;
  const int32_t chunk = decoder_.max_rows();
  std::vector<float> residual(static_cast<size_t>(chunk * width));
  int32_t layer = kNowhere, position = 0;
  // Once more over the whole text: what a row reads of earlier ones may be where it began.
  for (int32_t begin = 0; begin < s.length() && layer == kNowhere; begin += chunk) {
    const int32_t rows = std::min(chunk, s.length() - begin);
    backend.synchronize(*context_);
    rows_.clear();
    rows_.add_chain(s.slot, begin, s.text.data() + begin, rows);
    const auto look = [&](int32_t at) {
      if (interrupt_) interrupt_(at);
      if (layer != kNowhere) return;
      backend.copy_out(*context_, residual.data(), decoder_.residual(),
                       rows * width * static_cast<int64_t>(sizeof(float)));
      backend.synchronize(*context_);
      const int32_t row = first_broken_row(residual, rows, width);
      if (row < 0) return;
      layer = at;
      position = begin + row;
    };
    ForwardOutputs outputs;
    outputs.hidden = hidden_.data();
    decoder_.forward(*context_, rows_.upload(*context_), cache_.storage().layers(), outputs, look);
  }
  backend.synchronize(*context_);
  std::string place = "the final norm or the lm_head";
  if (layer == -1) place = "the embedding";
  if (layer >= 0) place = "layer " + std::to_string(layer);
  std::string message =
      "logits: need finite numbers; " + place + " is the first to give NaN or infinity";
  if (layer != kNowhere) message += ", for token " + std::to_string(position) + " of the text";
  if (uses_float16(*model_, layer, cache_.storage().layers().front())) {
    message += "; float16 holds at most 65504: bfloat16 or float32 may do";
  }
  return message;
}

}  // namespace medusa
