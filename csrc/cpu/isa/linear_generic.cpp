#include "cpu/isa/headers.h"

// clang-format off
#include "cpu/isa/generic.h"
#include "cpu/isa/dot_generic.h"
#include "cpu/linear/linear_kernels_inl.h"
// clang-format on
