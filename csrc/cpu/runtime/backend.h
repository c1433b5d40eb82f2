// The CPU as a backend of the decoder.
#pragma once

#include <string>

#include "core/backend.h"

namespace medusa::cpu {

/// isa: an entry of available_isas(), or empty for what MEDUSA_ISA names or else the best;
/// std::invalid_argument otherwise.
Backend make_backend(const std::string& isa = "");

}  // namespace medusa::cpu
