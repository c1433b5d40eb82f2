// The instruction sets this machine can run, and their kernel tables.
#pragma once

#include <string>
#include <vector>

#include "core/kernel_table.h"

namespace medusa::cpu {

/// Names of the usable tables, best first; "generic" is always the last.
std::vector<std::string> available_isas();

/// The table that MEDUSA_ISA names, read once, or else the best of this machine. Throws
/// std::invalid_argument like the function below.
const KernelTable& kernel_table();

/// The table of that name ("generic", "avx2", "avx2_vnni", "avx512", "neon", "neon_dotprod");
/// throws std::invalid_argument when this machine or build does not have it.
const KernelTable& kernel_table(const std::string& name);

}  // namespace medusa::cpu
