// argmax: logits to greedy targets.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/backend.h"
#include "ops/check.h"

namespace medusa::ops {
namespace {

at::Tensor argmax(const at::Tensor& logits) {
  const Argument argument{"argmax", "logits", logits};
  const Call call("argmax", "logits", logits.device());
  check_dense(argument, logits.device());
  const DType dtype = check_float(argument);
  TORCH_CHECK_VALUE(logits.dim() >= 1 && logits.size(-1) >= 1,
                    "argmax: logits must be [..., V] with V >= 1, got ", logits.sizes());

  const at::Tensor rows = logits.contiguous();
  at::Tensor out =
      at::empty(logits.sizes().slice(0, logits.dim() - 1), logits.options().dtype(at::kInt));
  if (out.numel() == 0) return out;
  ArgmaxParams params;
  params.num_rows = static_cast<int32_t>(out.numel());
  params.width = logits.size(-1);
  params.dtype = dtype;
  params.logits = rows.const_data_ptr();
  params.row_stride = params.width;
  params.out = out.mutable_data_ptr<int32_t>();
  call.kernels().argmax(call.context(), params);
  return out;
}

TORCH_LIBRARY_FRAGMENT(medusa, library) {
  library.def("argmax(Tensor logits) -> Tensor");
  library.impl("argmax", c10::DispatchKey::CompositeExplicitAutograd, TORCH_FN(argmax));
}

}  // namespace
}  // namespace medusa::ops
