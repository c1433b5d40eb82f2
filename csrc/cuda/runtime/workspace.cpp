#include "cuda/runtime/workspace.h"

#include "cuda/sampling/row_reduction.h"
#include "cuda/sampling/sample_rows.h"

namespace medusa::cuda {

int64_t workspace_bytes(const ArgmaxParams& params) {
  return row_reduction_bytes(params.num_rows, params.width);
}

int64_t workspace_bytes(const SampleParams& params) {
  return sample_rows_bytes(params.num_rows, params.width);
}

}  // namespace medusa::cuda
