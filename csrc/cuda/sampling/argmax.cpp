#include "cuda/runtime/kernels.h"
#include "cuda/runtime/workspace.h"
#include "cuda/sampling/row_reduction.h"

namespace medusa::cuda {

cudaError_t argmax(const CudaContext& context, const ArgmaxParams& params) {
  if (workspace_bytes(params) > context.workspace_bytes) {
    return cudaErrorMemoryAllocation;
  }
  RowReductionParams reduction;
  reduction.rows = {params.num_rows, params.width,      params.dtype,
                    params.logits,   params.row_stride, nullptr};
  reduction.out = params.out;
  reduction.partials = context.workspace;
  return reduce_rows(context, RowReduction::kArgmax, reduction);
}

}  // namespace medusa::cuda
