// Sampling as an arg-max with keyed noise, over rows that may be chosen on the device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/sampling/row_reduction.h"

namespace medusa::cuda {

struct SampleRowsParams {
  LogitRows rows;
  const uint64_t* seeds = nullptr;     // [num_rows]
  const int32_t* positions = nullptr;  // [num_rows], of the token that is drawn
  SamplingRules rules;                 // [num_rows]
  int32_t* out = nullptr;              // [num_rows]
  void* workspace = nullptr;           // sample_rows_bytes
};

int64_t sample_rows_bytes(int32_t num_rows, int64_t width);
cudaError_t sample_rows(const CudaContext& context, const SampleRowsParams& params);

}  // namespace medusa::cuda
