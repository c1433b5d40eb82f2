// Weights of the CUDA backend: row-major in a 16-bit or 32-bit floating type.
#pragma once

#include <cstdint>

#include "core/packed_matrix.h"

namespace medusa::cuda {

int64_t packed_bytes(DType format, int32_t num_outputs, int32_t num_inputs);

/// Converts rows on the host and copies them to the device. Throws std::runtime_error.
void pack(const PackParams& params);

int64_t activation_bytes(DType format, int32_t num_rows, int32_t width);
DType activation_format(DType weight_format);

}  // namespace medusa::cuda
