#include "cpu/isa/headers.h"

#if defined(__x86_64__)

// clang-format off
#include "cpu/isa/avx2_vnni.h"
#include "cpu/isa/dot_avx2_vnni.h"
#include "cpu/linear/packed_layout_inl.h"
#include "benchmarks/peaks_inl.h"
#include "cpu/isa/end.h"
// clang-format on

#endif
