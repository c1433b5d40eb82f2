// The attention and step kernels for generic.
// The order of these headers matters.
// clang-format off
#include "cpu/isa/headers.h"
#include "cpu/isa/generic.h"
#include "cpu/isa/attention_vec_generic.h"
#include "cpu/attention/attention_kernels_inl.h"
// clang-format on
