#include "cuda/runtime/kernels.h"
#include "cuda/runtime/workspace.h"
#include "cuda/sampling/sample_rows.h"

namespace medusa::cuda {

int64_t sample_rows_bytes(int32_t num_rows, int64_t width) {
  return aligned_bytes(num_rows * int64_t{sizeof(float)}) + row_reduction_bytes(num_rows, width);
}

cudaError_t sample_rows(const CudaContext& context, const SampleRowsParams& params) {
  Workspace workspace(params.workspace);
  float* thresholds = workspace.take<float>(params.rows.num_rows);
  RowReductionParams reduction;
  reduction.rows = params.rows;
  reduction.out = params.out;
  reduction.partials = workspace.rest();
  const bool is_greedy = params.rules.own == nullptr && params.rules.shared.temperature <= 0;
  if (is_greedy) return reduce_rows(context, RowReduction::kArgmax, reduction);

  if (params.rules.filters()) {
    const ThresholdParams filter = {params.rows, params.rules, thresholds};
    const cudaError_t status = sampling_thresholds(context, filter);
    if (status != cudaSuccess) return status;
    reduction.thresholds = thresholds;
  }
  reduction.rules = params.rules;
  reduction.seeds = params.seeds;
  reduction.positions = params.positions;
  return reduce_rows(context, RowReduction::kGumbel, reduction);
}

cudaError_t sample(const CudaContext& context, const SampleParams& params) {
  if (workspace_bytes(params) > context.workspace_bytes) {
    return cudaErrorMemoryAllocation;
  }
  SampleRowsParams rows;
  rows.rows = {params.num_rows, params.width,      params.dtype,
               params.logits,   params.row_stride, nullptr};
  rows.seeds = params.seeds;
  rows.positions = params.positions;
  rows.rules = params.rules;
  rows.out = params.out;
  rows.workspace = context.workspace;
  return sample_rows(context, rows);
}

}  // namespace medusa::cuda
