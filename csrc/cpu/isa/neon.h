// Begins the NEON build of kernel bodies: part of every AArch64, so no target region.
#pragma once

#define MEDUSA_ISA_NAMESPACE neon

#include "cpu/isa/vec_neon.h"
