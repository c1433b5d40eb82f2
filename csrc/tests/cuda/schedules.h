// Runs a check under several schedules of the emulator; once on a device.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>

#ifdef SIMT_EMU
#include "simt.h"
#endif

namespace medusa::cuda::testing {

/// The full grids, for hours rather than minutes: MEDUSA_SOAK=1.
inline bool soak() { return std::getenv("MEDUSA_SOAK") != nullptr; }

/// Schedules of each check: four in the plain build. The sanitizers' builds look at every access,
/// so that one schedule tells them nearly all, and they are several times slower.
inline int num_schedules() {
#if !defined(SIMT_EMU)
  return 1;
#elif defined(SIMT_VARIANT_PLAIN)
  return 4;
#else
  return 1;
#endif
}

/// check() under each schedule, until one fails.
template <typename F>
void under_schedules(F&& check, int count = num_schedules()) {
  for (int seed = 0; seed < count && !::testing::Test::HasFailure(); ++seed) {
#ifdef SIMT_EMU
    // A single schedule is not the trivial one.
    simt::options().seed = static_cast<uint64_t>(count == 1 ? 7 : seed);
    simt::options().poison = seed % 2 == 0 ? 0xff : 0x3c;
#endif
    SCOPED_TRACE(::testing::Message() << "schedule " << seed);
    check();
  }
}

/// Whether this build is a sanitizer's, where big shapes take too long.
inline bool is_sanitized() {
#if defined(SIMT_EMU) && !defined(SIMT_VARIANT_PLAIN)
  return true;
#else
  return false;
#endif
}

}  // namespace medusa::cuda::testing
