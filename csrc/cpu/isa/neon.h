// Begins the NEON build of kernel bodies: part of every AArch64, so no target region.
#pragma once

#define MEDUSA_ISA_NAMESPACE neon

// clang-format off: the order matters
#include "cpu/isa/vec_neon.h"
#include "cpu/isa/vec_math_inl.h"
// clang-format on
