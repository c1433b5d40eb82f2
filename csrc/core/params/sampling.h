// From logits to tokens.
// Dimension letters and conventions: core/params/rows.h.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/host_device.h"
#include "core/params/step.h"

namespace medusa {

/// Logits divided by a smaller temperature would leave float32. Callers take such a one as 0,
/// greedy.
constexpr float kLeastTemperature = 1e-30f;

/// Arg-max of float rows; ties go to the lowest id, NaN never wins over a number. Where the largest
/// number is not finite, or there is none, no token is the likeliest: -1.
struct ArgmaxParams {
  int32_t num_rows = 0;
  int64_t width = 0;  // V
  DType dtype = DType::kFloat32;
  const void* logits = nullptr;  // [R, V]
  int64_t row_stride = 0;
  int32_t* out = nullptr;  // [R]
};

/// How a token is drawn, and which drafts are accepted.
struct SamplingRule {
  float temperature = 1;  // at most 0: the arg-max
  float top_p = 1;        // 1: off
  int32_t top_k = 0;      // 0: off
  bool typical = false;   // accepts typical drafts, not only those that are targets
  float epsilon = 0.09f;  // of typical acceptance
  float delta = 0.3f;     // likewise

  bool filters() const { return top_k > 0 || top_p < 1; }
};

/// The rules of all rows (or sequences): one for all of them, or each its own.
struct SamplingRules {
  SamplingRule shared;
  const SamplingRule* own = nullptr;  // [R] or [B]; null: `shared` for all
  bool any_filters = true;            // of `own`: whether some rule has a top_k or a top_p

  bool filters() const { return own != nullptr ? any_filters : shared.filters(); }
  MEDUSA_HOST_DEVICE SamplingRule operator[](int64_t i) const {
    return own != nullptr ? own[i] : shared;
  }
};

/// Sampling as an arg-max: keyed Gumbel noise is added to logits / temperature, after top-k and
/// top-p. Noise is a function of (seed, position, token) alone (core/noise.h). -1 as in arg-max.
struct SampleParams {
  int32_t num_rows = 0;
  int64_t width = 0;  // V
  DType dtype = DType::kFloat32;
  const void* logits = nullptr;  // [R, V]
  int64_t row_stride = 0;
  const uint64_t* seeds = nullptr;     // [R]
  const int32_t* positions = nullptr;  // [R], position of the token that is drawn
  SamplingRules rules;                 // [R]
  int32_t* out = nullptr;              // [R]
};

/// Typical acceptance (Medusa, section 3.3.1): child x of an accepted node is accepted when
/// p(x) > min(epsilon, delta * exp(-H)), p the tempered softmax at the parent; the longest accepted
/// path, ties by the sum of log p. The next root is drawn like `SampleParams` does. Of sequences
/// whose rule is not typical nothing is written.
struct AcceptTypicalParams {
  AcceptParams accept;  // targets unused
  int64_t width = 0;    // V
  DType dtype = DType::kFloat32;
  const void* logits = nullptr;      // [B, N, V]
  const uint64_t* seeds = nullptr;   // [B]
  const int32_t* lengths = nullptr;  // [B], position of the root: noise is keyed by position
  SamplingRules rules;               // [B]
};

}  // namespace medusa
