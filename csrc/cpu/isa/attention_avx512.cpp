// The attention and step kernels for avx512.
#if defined(__x86_64__)
// The order of these headers matters.
// clang-format off
#include "cpu/isa/headers.h"
#include "cpu/isa/avx512.h"
#include "cpu/isa/attention_vec_avx512.h"
#include "cpu/attention/attention_kernels_inl.h"
#include "cpu/isa/end.h"
// clang-format on
#endif
