// What one thread of this machine can do at most: reading memory, and the arithmetic of the matrix
// kernels' tiles on registers alone.
//
// Compiled at run time for one instruction set: MEDUSA_PROBE_ISA and MEDUSA_PROBE_DOT name its
// headers. Each function is called by as many threads as are to be measured.
// clang-format off
#include "cpu/isa/headers.h"
#include MEDUSA_PROBE_ISA
#include MEDUSA_PROBE_DOT
#include "cpu/linear/packed_layout_inl.h"
#include "benchmarks/peaks_inl.h"
// clang-format on

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

inline uint64_t read_all(const void* start, int64_t bytes) {
  const auto* words = static_cast<const uint64_t*>(start);
  uint64_t lanes[32] = {};
  for (int64_t i = 0; i + 32 <= bytes / 8; i += 32) {
    for (int line = 0; line < 4; ++line) __builtin_prefetch(words + i + 1024 + 8 * line);
    for (int lane = 0; lane < 32; ++lane) lanes[lane] ^= words[i + lane];
  }
  uint64_t all = 0;
  for (const uint64_t lane : lanes) all ^= lane;
  return all;
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE

#if MEDUSA_PROBE_REGION
#include "cpu/isa/end.h"
#endif

namespace isa = medusa::cpu::MEDUSA_ISA_NAMESPACE;

#define MEDUSA_EXPORT extern "C" __attribute__((visibility("default")))

/// Runs the peak of float32 (0), int8 (3) or int4 (4), indices of kWeightFormats; returns the
/// operations done.
MEDUSA_EXPORT float medusa_probe_peak(int32_t format, int64_t iterations) {
  const auto peak = format == 0 ? isa::float_peak : format == 3 ? isa::int8_peak : isa::int4_peak;
  return static_cast<float>(peak(iterations));
}

/// Operations of one iteration.
MEDUSA_EXPORT int64_t medusa_probe_operations(int32_t format) {
  return static_cast<int64_t>(medusa_probe_peak(format, 1));
}

MEDUSA_EXPORT uint64_t medusa_probe_read(const void* start, int64_t bytes) {
  return isa::read_all(start, bytes);
}
