// Begins the NEON region with the 8-bit dot products of Armv8.2; end.h ends it.
#pragma once

#define MEDUSA_ISA_NAMESPACE neon_dotprod
#define MEDUSA_NEON_DOTPROD

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#include "cpu/isa/vec_neon.h"
