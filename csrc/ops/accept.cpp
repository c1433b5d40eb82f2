// accept: tokens and targets of a tree to the accepted path and the next root.
#include <torch/library.h>

#include "core/token_tree.h"
#include "ops/accept_outputs.h"
#include "ops/backend.h"
#include "ops/check.h"

namespace medusa::ops {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> accept(const at::Tensor& tokens,
                                                      const at::Tensor& targets,
                                                      const at::Tensor& parents) {
  const c10::Device device = tokens.device();
  const Call call("accept", "tokens", device);
  check_dense({"accept", "tokens", tokens}, device);
  check_dtype({"accept", "tokens", tokens}, at::kInt);
  check_rank({"accept", "tokens", tokens}, "[B, N]", 2);
  check_range("accept", "tokens.shape[1]", tokens.size(1), 1, TokenTree::kMaxNodes);
  const at::Tensor token_rows = tokens.contiguous();
  const at::Tensor target_rows =
      check_indices({"accept", "targets", targets}, "[B, N]", tokens.sizes(), device);
  const at::Tensor parent_rows =
      check_indices({"accept", "parents", parents}, "[B, N]", tokens.sizes(), device);
  check_parents({"accept", "parents", parent_rows});

  const AcceptOutputs outputs(token_rows);
  if (tokens.numel() == 0) return outputs.tuple();
  AcceptParams params;
  outputs.fill(params);
  params.tokens = token_rows.const_data_ptr<int32_t>();
  params.targets = target_rows.const_data_ptr<int32_t>();
  params.parents = parent_rows.const_data_ptr<int32_t>();
  call.kernels().accept(call.context(), params);
  return outputs.tuple();
}

TORCH_LIBRARY_FRAGMENT(medusa, library) {
  library.def(
      "accept(Tensor tokens, Tensor targets, Tensor parents) "
      "-> (Tensor path, Tensor count, Tensor next_root)");
  library.impl("accept", c10::DispatchKey::CompositeExplicitAutograd, TORCH_FN(accept));
}

}  // namespace
}  // namespace medusa::ops
