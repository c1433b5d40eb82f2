// Begins the AVX-512 (F, BW, VL, DQ, VNNI) region of a translation unit; end.h ends it.
#pragma once

#define MEDUSA_ISA_NAMESPACE avx512

#if defined(__clang__)
#pragma clang attribute push(                                                               \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), \
    apply_to = function)
#else
// GCC 12's own headers start results of unmasked intrinsics from a deliberately unset variable.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif

#include "cpu/isa/vec_avx512.h"
