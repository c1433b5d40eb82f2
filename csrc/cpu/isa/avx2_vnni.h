// Begins the AVX2 + FMA + F16C + AVX-VNNI region of a translation unit; end.h ends it.
#pragma once

#define MEDUSA_ISA_NAMESPACE avx2_vnni

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif

#include "cpu/isa/vec_avx2.h"
