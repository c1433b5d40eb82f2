// The attention and step kernels for neon.
#if defined(__aarch64__)
// The order of these headers matters.
// clang-format off
#include "cpu/isa/headers.h"
#include "cpu/isa/neon.h"
#include "cpu/isa/attention_vec_neon.h"
#include "cpu/attention/attention_kernels_inl.h"
// clang-format on
#endif
