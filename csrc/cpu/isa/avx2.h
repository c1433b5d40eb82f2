// Begins the AVX2 + FMA + F16C region of a translation unit; end.h ends it.
#pragma once

#define MEDUSA_ISA_NAMESPACE avx2

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#include "cpu/isa/vec_avx2.h"
