// candidates: the heads' logits to the tokens of the tree's nodes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "core/token_tree.h"
#include "ops/backend.h"
#include "ops/check.h"

namespace medusa::ops {
namespace {

constexpr const char* kOp = "candidates";
constexpr int64_t kMaxTopK = 32;

std::tuple<at::Tensor, at::Tensor, at::Tensor> candidates(
    const at::Tensor& logits, const at::Tensor& roots, const at::Tensor& depths,
    const at::Tensor& ranks, int64_t top_k, const c10::optional<at::Tensor>& token_map) {
  const c10::Device device = logits.device();
  const Call call(kOp, "logits", device);
  check_dense({kOp, "logits", logits}, device);
  const DType dtype = check_float({kOp, "logits", logits});
  check_rank({kOp, "logits", logits}, "[B, K, V]", 3);
  const int64_t num_sequences = logits.size(0), num_heads = logits.size(1), width = logits.size(2);
  check_range(kOp, "logits.shape[2]", width, 1, INT32_MAX);
  check_range(kOp, "top_k", top_k, 1, std::min(kMaxTopK, width));
  const at::Tensor root_rows = check_indices({kOp, "roots", roots}, "[B]", num_sequences, device);
  check_rank({kOp, "depths", depths}, "[N]", 1);
  const int64_t num_nodes = depths.size(0);
  check_range(kOp, "depths.shape[0]", num_nodes, 1, TokenTree::kMaxNodes);
  const at::Tensor depth_rows = check_indices({kOp, "depths", depths}, "[N]", num_nodes, device);
  check_values({kOp, "depths", depth_rows}, 0, num_heads);
  const at::Tensor rank_rows = check_indices({kOp, "ranks", ranks}, "[N]", num_nodes, device);
  check_values({kOp, "ranks", rank_rows}, 0, top_k - 1);
  at::Tensor map;
  if (token_map) map = check_indices({kOp, "token_map", *token_map}, "[V]", width, device);

  const auto options = root_rows.options();
  const at::Tensor tokens = at::empty({num_sequences, num_nodes}, options);
  const at::Tensor top_ids = at::empty({num_sequences, num_heads, top_k}, options);
  const at::Tensor log_probs =
      at::empty({num_sequences, num_heads, top_k}, options.dtype(at::kFloat));
  if (num_sequences == 0) return {tokens, top_ids, log_probs};
  const at::Tensor logit_rows = logits.contiguous();
  CandidatesParams params;
  params.num_sequences = static_cast<int32_t>(num_sequences);
  params.num_heads = static_cast<int32_t>(num_heads);
  params.width = width;
  params.top_k = static_cast<int32_t>(top_k);
  params.num_nodes = static_cast<int32_t>(num_nodes);
  params.dtype = dtype;
  params.logits = logit_rows.const_data_ptr();
  params.token_map = map.defined() ? map.const_data_ptr<int32_t>() : nullptr;
  params.roots = root_rows.const_data_ptr<int32_t>();
  params.depths = depth_rows.const_data_ptr<int32_t>();
  params.ranks = rank_rows.const_data_ptr<int32_t>();
  params.top_ids = top_ids.mutable_data_ptr<int32_t>();
  params.top_log_probs = log_probs.mutable_data_ptr<float>();
  params.tokens = tokens.mutable_data_ptr<int32_t>();
  call.kernels().candidates(call.context(), params);
  return {tokens, top_ids, log_probs};
}

TORCH_LIBRARY_FRAGMENT(medusa, library) {
  library.def(
      "candidates(Tensor logits, Tensor roots, Tensor depths, Tensor ranks, *, int top_k, "
      "Tensor? token_map=None) -> (Tensor tokens, Tensor top_ids, Tensor top_log_probs)");
  library.impl("candidates", c10::DispatchKey::CompositeExplicitAutograd, TORCH_FN(candidates));
}

}  // namespace
}  // namespace medusa::ops
