#include "cpu/isa/headers.h"

#if defined(__x86_64__)

// clang-format off
#include "cpu/isa/avx2.h"
#include "cpu/isa/dot_avx2.h"
#include "cpu/linear/linear_kernels_inl.h"
#include "cpu/isa/end.h"
// clang-format on

#endif
