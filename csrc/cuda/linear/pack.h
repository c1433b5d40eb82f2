// Weights of the CUDA backend: row-major in a 16-bit or 32-bit floating type.
#pragma once

#include <cstdint>

#include "core/activations.h"
#include "core/packed_matrix.h"

namespace medusa::cuda {

bool supports(const WeightFormat& format);

/// The type of a supported format's weights; std::runtime_error for any other format.
DType element_type(const WeightFormat& format);

int64_t packed_bytes(const WeightFormat& format, int32_t num_outputs, int32_t num_inputs);

/// Converts rows on the host and copies them to the device. Throws std::runtime_error.
void pack(const PackParams& params);

int64_t activation_bytes(const ActivationFormat& format, int32_t num_rows, int32_t width);

/// The weights' own type.
ActivationFormat activation_format(const WeightFormat& format);

}  // namespace medusa::cuda
