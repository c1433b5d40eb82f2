// sample: logits to targets drawn with keyed noise.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/backend.h"
#include "ops/check.h"

namespace medusa::ops {
namespace {

at::Tensor sample(const at::Tensor& logits, const at::Tensor& seeds, const at::Tensor& positions,
                  double temperature, double top_p, int64_t top_k) {
  const Argument argument{"sample", "logits", logits};
  const c10::Device device = logits.device();
  const Call call("sample", "logits", device);
  check_dense(argument, device);
  const DType dtype = check_float(argument);
  TORCH_CHECK_VALUE(logits.dim() >= 1 && logits.size(-1) >= 1,
                    "sample: logits must be [..., V] with V >= 1, got ", logits.sizes());
  const c10::IntArrayRef sizes = logits.sizes().slice(0, logits.dim() - 1);
  check_dense({"sample", "seeds", seeds}, device);
  check_dtype({"sample", "seeds", seeds}, at::kLong);
  check_sizes({"sample", "seeds", seeds}, "logits.shape[:-1]", sizes);
  const at::Tensor positions_rows =
      check_indices({"sample", "positions", positions}, "logits.shape[:-1]", sizes, device);
  check_sampling("sample", temperature, top_p, top_k);

  const at::Tensor rows = logits.contiguous();
  const at::Tensor seeds_rows = seeds.contiguous();
  at::Tensor out = at::empty(sizes, logits.options().dtype(at::kInt));
  if (out.numel() == 0) return out;
  SampleParams params;
  params.num_rows = static_cast<int32_t>(out.numel());
  params.width = logits.size(-1);
  params.dtype = dtype;
  params.logits = rows.const_data_ptr();
  params.row_stride = params.width;
  params.seeds = reinterpret_cast<const uint64_t*>(seeds_rows.const_data_ptr<int64_t>());
  params.positions = positions_rows.const_data_ptr<int32_t>();
  params.rules.shared.temperature = static_cast<float>(temperature);
  params.rules.shared.top_p = static_cast<float>(top_p);
  params.rules.shared.top_k = static_cast<int32_t>(top_k);
  params.out = out.mutable_data_ptr<int32_t>();
  call.kernels().sample(call.context(), params);
  return out;
}

TORCH_LIBRARY_FRAGMENT(medusa, library) {
  library.def(
      "sample(Tensor logits, Tensor seeds, Tensor positions, *, float temperature=1.0, "
      "float top_p=1.0, int top_k=0) -> Tensor");
  library.impl("sample", c10::DispatchKey::CompositeExplicitAutograd, TORCH_FN(sample));
}

}  // namespace
}  // namespace medusa::ops
