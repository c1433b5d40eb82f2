#include "cpu/isa/headers.h"

#if defined(__aarch64__)

// clang-format off
#include "cpu/isa/neon_dotprod.h"
#include "cpu/isa/dot_neon.h"
#include "cpu/linear/linear_kernels_inl.h"
#include "cpu/isa/end.h"
// clang-format on

#endif
