// Ends the target region that avx2.h, avx2_vnni.h, avx512.h or neon_dotprod.h began.
#pragma once

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
