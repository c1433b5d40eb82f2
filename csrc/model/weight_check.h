// A look at weights before they are packed: all of them are numbers that their format holds.
#pragma once

#include <cstdint>
#include <string>

#include "core/source_type.h"
#include "core/weight_format.h"

namespace medusa {

/// std::invalid_argument naming tensor and row unless each of `num_rows` rows of `num_inputs`
/// weights is finite and at most largest_weight(format). One pass over the source's bytes, of
/// blocks only over their scales.
void check_weights(const std::string& name, const WeightFormat& format, SourceType type,
                   const void* data, int32_t num_rows, int32_t num_inputs, int64_t row_bytes,
                   int32_t first_row);

/// The same of `size` numbers.
void check_numbers(const std::string& name, const float* data, int64_t size);

}  // namespace medusa
