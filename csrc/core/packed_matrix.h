// A weight matrix in the layout its kernels chose, and how it is filled.
#pragma once

#include <cstdint>

#include "core/source_type.h"
#include "core/weight_format.h"

namespace medusa {

/// Weights [N, K] (N outputs, K inputs) packed by `KernelTable::pack`; the layout belongs to the
/// kernels of that table. Plain data: `data` is owned by the model.
struct PackedMatrix {
  WeightFormat format;
  int32_t num_outputs = 0;  // N
  int32_t num_inputs = 0;   // K
  /// Outputs are F gate rows, then F up rows (N = 2F), and the matrix serves Epilogue::kSiluMul
  /// alone: packed so that a gate row and its up row are together. Set before packing.
  bool is_gate_up = false;
  void* data = nullptr;  // `packed_bytes(format, N, K)` bytes, 64-byte aligned
  int64_t bytes = 0;
};

/// Rows `first_output … first_output + num_rows - 1` of a matrix, taken from row-major source rows.
/// Q8_0 into int8 and Q4_0/Q4_1 into int4 are lossless; other pairs go through float32.
struct PackParams {
  PackedMatrix* matrix = nullptr;
  SourceType source_type = SourceType::kFloat32;
  const void* source = nullptr;  // [num_rows, K] in source_type
  int64_t source_stride = 0;     // bytes from one source row to the next
  int32_t first_output = 0;
  int32_t num_rows = 0;
};

}  // namespace medusa
