// Matrix products.
// Dimension letters and conventions: core/params/rows.h.
#pragma once

#include <cstdint>

#include "core/activations.h"
#include "core/packed_matrix.h"

namespace medusa {

enum class Epilogue : int32_t {
  kStore = 0,    // out = xW + bias
  kAdd = 1,      // out += xW + bias: the residual stream
  kSiluMul = 2,  // is_gate_up weights, N = 2F: out[:, f] = silu(gate_f) * up_f
  kArgmax = 3,   // nothing stored but the arg-max over N of each row, as in ArgmaxParams
  kSiluAdd = 4,  // out += silu(xW + bias): a Medusa ResBlock
};

/// out[r, n] = sum_k in[r, k] * weight[n, k]. A row's bits never depend on R or the thread count.
struct LinearParams {
  int32_t num_rows = 0;                  // R
  Activations in;                        // [R, K]
  const PackedMatrix* weight = nullptr;  // [N, K]
  const float* bias = nullptr;           // [N] or null
  Epilogue epilogue = Epilogue::kStore;
  float* out = nullptr;  // [R, N], row stride out_stride; kSiluMul: [R, N/2]; unused: null
  int64_t out_stride = 0;
  Activations out_activations;  // kSiluMul: written instead of `out` when its data is set
  int32_t* argmax = nullptr;    // [R] kArgmax
  float* max_value = nullptr;   // [R] kArgmax, or null
};

}  // namespace medusa
