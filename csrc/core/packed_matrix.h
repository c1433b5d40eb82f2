// A weight matrix in the layout its kernels chose, and the activations they read.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace medusa {

/// Weights [N, K] (N outputs, K inputs) packed by `KernelTable::pack`; the layout belongs to the
/// kernels of that table. Plain data: `data` is owned by the model.
struct PackedMatrix {
  DType format = DType::kFloat32;
  int32_t num_outputs = 0;  // N
  int32_t num_inputs = 0;   // K
  /// Outputs are F gate rows, then F up rows (N = 2F), and the matrix serves Epilogue::kSiluMul
  /// alone: packed so that a gate row and its up row lie together. Set before packing.
  bool is_gate_up = false;
  void* data = nullptr;  // `packed_bytes(format, N, K)` bytes, 64-byte aligned
  int64_t bytes = 0;
};

/// How source weights are stored before packing. GGUF blocks hold 32 weights of a row:
/// Q8_0 {f16 d; int8 q[32]} w = d*q, Q4_0 {f16 d; uint8 q[16]} w = d*(q-8),
/// Q4_1 {f16 d; f16 m; uint8 q[16]} w = d*q+m; low nibbles are weights 0..15, high ones 16..31.
enum class SourceType : int32_t {
  kFloat32 = 0,
  kBFloat16 = 1,
  kFloat16 = 2,
  kQ8_0 = 3,
  kQ4_0 = 4,
  kQ4_1 = 5
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

/// Activations [R, K] as a matrix product reads them: float32 for float weights; for int8 and int4
/// weights int8 values in [-127, 127] with one float scale per row and group of 32 (the CUDA
/// backend: the weights' 16-bit type). Rows never influence each other. The buffer's inner layout
/// belongs to the kernels; `activation_bytes` of the table sizes it.
struct Activations {
  DType format = DType::kFloat32;  // kFloat32, kInt8; CUDA also kBFloat16, kFloat16
  int32_t width = 0;               // K
  void* data = nullptr;            // 64-byte aligned
};

/// The activation format that weights of `format` want on the CPU.
inline DType cpu_activation_format(DType format) {
  return format == DType::kInt8 || format == DType::kInt4 ? DType::kInt8 : DType::kFloat32;
}

}  // namespace medusa
