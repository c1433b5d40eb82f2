// accept_typical: tokens and logits of a tree to the path that typical acceptance takes.
#include <torch/library.h>

#include "core/token_tree.h"
#include "ops/accept_outputs.h"
#include "ops/backend.h"
#include "ops/check.h"

namespace medusa::ops {
namespace {

constexpr const char* kOp = "accept_typical";

void check_thresholds(double epsilon, double delta) {
  TORCH_CHECK_VALUE(epsilon >= 0 && epsilon <= 1, kOp, ": epsilon must be from 0 to 1, got ",
                    epsilon);
  TORCH_CHECK_VALUE(delta >= 0 && delta <= 1, kOp, ": delta must be from 0 to 1, got ", delta);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> accept_typical(
    const at::Tensor& tokens, const at::Tensor& logits, const at::Tensor& parents,
    const at::Tensor& seeds, const at::Tensor& lengths, double temperature, double top_p,
    int64_t top_k, double epsilon, double delta) {
  const c10::Device device = logits.device();
  const Call call(kOp, "logits", device);
  check_dense({kOp, "logits", logits}, device);
  const DType dtype = check_float({kOp, "logits", logits});
  check_rank({kOp, "logits", logits}, "[B, N, V]", 3);
  const int64_t num_sequences = logits.size(0), num_nodes = logits.size(1), width = logits.size(2);
  check_range(kOp, "logits.shape[1]", num_nodes, 1, TokenTree::kMaxNodes);
  check_range(kOp, "logits.shape[2]", width, 1, INT32_MAX);
  const int64_t sizes[] = {num_sequences, num_nodes};
  const at::Tensor token_rows = check_indices({kOp, "tokens", tokens}, "[B, N]", sizes, device);
  check_values({kOp, "tokens", token_rows}, 0, width - 1);
  const at::Tensor parent_rows = check_indices({kOp, "parents", parents}, "[B, N]", sizes, device);
  check_parents({kOp, "parents", parent_rows});
  check_dense({kOp, "seeds", seeds}, device);
  check_dtype({kOp, "seeds", seeds}, at::kLong);
  check_sizes({kOp, "seeds", seeds}, "[B]", num_sequences);
  const at::Tensor seed_rows = seeds.contiguous();
  const at::Tensor length_rows =
      check_indices({kOp, "lengths", lengths}, "[B]", num_sequences, device);
  check_sampling(kOp, temperature, top_p, top_k);
  check_thresholds(epsilon, delta);

  const AcceptOutputs outputs(token_rows);
  if (num_sequences == 0) return outputs.tuple();
  const at::Tensor logit_rows = logits.contiguous();
  AcceptTypicalParams params;
  outputs.fill(params.accept);
  params.accept.tokens = token_rows.const_data_ptr<int32_t>();
  params.accept.parents = parent_rows.const_data_ptr<int32_t>();
  params.width = width;
  params.dtype = dtype;
  params.logits = logit_rows.const_data_ptr();
  params.seeds = reinterpret_cast<const uint64_t*>(seed_rows.const_data_ptr<int64_t>());
  params.lengths = length_rows.const_data_ptr<int32_t>();
  SamplingRule& rule = params.rules.shared;
  rule.temperature = static_cast<float>(temperature);
  rule.top_p = static_cast<float>(top_p);
  rule.top_k = static_cast<int32_t>(top_k);
  rule.typical = true;
  rule.epsilon = static_cast<float>(epsilon);
  rule.delta = static_cast<float>(delta);
  call.kernels().accept_typical(call.context(), params);
  return outputs.tuple();
}

TORCH_LIBRARY_FRAGMENT(medusa, library) {
  library.def(
      "accept_typical(Tensor tokens, Tensor logits, Tensor parents, Tensor seeds, Tensor lengths, "
      "*, float temperature=1.0, float top_p=1.0, int top_k=0, float epsilon=0.09, "
      "float delta=0.3) -> (Tensor path, Tensor count, Tensor next_root)");
  library.impl("accept_typical", c10::DispatchKey::CompositeExplicitAutograd,
               TORCH_FN(accept_typical));
}

}  // namespace
}  // namespace medusa::ops
