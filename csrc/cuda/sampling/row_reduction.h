// One pass over rows of logits, in two stages across blocks: arg-max, arg-max of the logits with
// Gumbel noise, or log-sum-exp and entropy. `argmax`, `sample` and `accept_typical` are made of it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/dtype.h"
#include "core/params/sampling.h"
#include "cuda/runtime/context.h"

namespace medusa::cuda {

/// Logits [num rows from `logits` on, V], of which output row r reads row row_index[r].
struct LogitRows {
  int32_t num_rows = 0;
  int64_t width = 0;  // V
  DType dtype = DType::kFloat32;
  const void* logits = nullptr;
  int64_t row_stride = 0;
  const int32_t* row_index = nullptr;  // [num_rows], negative: skipped; null: row r
};

enum class RowReduction { kArgmax, kGumbel, kEntropy };

struct RowReductionParams {
  LogitRows rows;
  SamplingRules rules;  // kGumbel and kEntropy: one for `rows_per_rule` rows
  int32_t rows_per_rule = 1;
  const uint64_t* seeds = nullptr;     // [num_rows] kGumbel
  const int32_t* positions = nullptr;  // [num_rows] kGumbel
  const float* thresholds = nullptr;   // [num_rows] kGumbel: smaller logits are left out; or null
  int32_t* out = nullptr;              // [num_rows] arg-max (kEntropy: of the logits), or null
  float* max_value = nullptr;          // [num_rows] kArgmax, or null
  float* log_sum_exp = nullptr;        // [num_rows] kEntropy, of logits / temperature
  float* entropy = nullptr;            // [num_rows] kEntropy, in nats
  void* partials = nullptr;            // row_reduction_bytes(rows)
};

int64_t row_reduction_bytes(int32_t num_rows, int64_t width);
cudaError_t reduce_rows(const CudaContext& context, RowReduction kind,
                        const RowReductionParams& params);

/// The smallest logit that top-k, then top-p of what is left, keep: thresholds [num_rows]. Logits
/// equal to it are all kept. Rows at temperature 0 get none.
struct ThresholdParams {
  LogitRows rows;
  SamplingRules rules;          // [num_rows]
  float* thresholds = nullptr;  // [num_rows]
};
cudaError_t sampling_thresholds(const CudaContext& context, const ThresholdParams& params);

}  // namespace medusa::cuda
