// The race detector. Kernel files are compiled with -fsanitize=thread, whose calls for each load
// and store end here instead of in ThreadSanitizer's library.
#include "race.h"

#ifdef SIMT_RACE

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "internal.h"

namespace simt::race {
namespace {

// A point in a thread's time: barriers of the block passed, and its own count of __syncwarp.
struct Moment {
  uint32_t barriers = 0;
  uint32_t warp_clock = 0;
  uint16_t thread = 0;
  Access kind = Access::kRead;
  const void* pc = nullptr;
};

struct Cell {        // of one byte of shared memory
  Moment writer;     // or the last atomic
  Moment others[4];  // reads and atomics
};

struct Detector {
  const char* begin = nullptr;
  size_t bytes = 0;
  std::vector<Cell> cells;
  uint32_t barriers = 1;  // never reset: earlier blocks are ordered before later ones
  uint32_t block_start = 1;
  // clock[thread][lane]: the last moment of that lane of its warp that the thread has synchronised
  // with; its own entry counts its time.
  uint32_t clock[kMaxThreads][kWarpSize];
};
thread_local std::unique_ptr<Detector> t_detector;
thread_local bool t_active = false;

const char* kind_name(Access kind) {
  switch (kind) {
    case Access::kRead:
      return "read";
    case Access::kWrite:
      return "write";
    case Access::kAtomic:
      return "atomic";
    case Access::kAsyncIssue:
      return "cp.async";
    case Access::kAsyncLand:
      return "write of cp.async";
  }
  return "";
}

bool ordered(const Detector& detector, const Moment& earlier, int thread) {
  if (earlier.barriers != detector.barriers || earlier.thread == thread) return true;
  if (earlier.thread / kWarpSize != thread / kWarpSize) return false;
  return detector.clock[thread][earlier.thread % kWarpSize] > earlier.warp_clock;
}

[[noreturn]] void fail_race(const Moment& earlier, const Moment& now, size_t offset) {
  blame(kind_name(earlier.kind), earlier.pc);
  blame(kind_name(now.kind), now.pc);
  if (earlier.kind == Access::kAsyncIssue) {
    fail(
        "race on shared memory, byte %zu: %s by thread %d while the cp.async of thread %d is in "
        "flight",
        offset, kind_name(now.kind), now.thread, earlier.thread);
  }
  fail("race on shared memory, byte %zu: %s by thread %d, then %s by thread %d, no barrier between",
       offset, kind_name(earlier.kind), earlier.thread, kind_name(now.kind), now.thread);
}

bool conflict(const Detector& detector, const Moment& earlier, const Moment& now) {
  if (earlier.kind == now.kind && (now.kind == Access::kRead || now.kind == Access::kAtomic)) {
    return false;
  }
  // A copy under way conflicts with its own thread's accesses too.
  const bool in_flight = earlier.kind == Access::kAsyncIssue && now.kind != Access::kAsyncLand;
  return (in_flight && earlier.barriers >= detector.block_start) ||
         !ordered(detector, earlier, now.thread);
}

void check_byte(Detector& detector, Cell& cell, const Moment& now, size_t offset) {
  if (conflict(detector, cell.writer, now)) fail_race(cell.writer, now, offset);
  for (const Moment& other : cell.others) {
    if (conflict(detector, other, now)) fail_race(other, now, offset);
  }
  Moment kept = now;
  if (now.kind != Access::kRead) {
    kept = cell.writer;
    cell.writer = now;
    if (kept.kind != Access::kAtomic) return;
  }
  // One that is ordered before this access need not be kept; of more than four others, four are.
  for (Moment& other : cell.others) {
    if (ordered(detector, other, now.thread)) {
      other = kept;
      return;
    }
  }
}

}  // namespace

void begin_block(char* shared, size_t bytes) {
  if (!t_detector) t_detector = std::make_unique<Detector>();
  Detector& detector = *t_detector;
  if (detector.begin != shared || detector.bytes != bytes) {
    detector.begin = shared;
    detector.bytes = bytes;
    detector.cells.assign(bytes, Cell{});
  }
  detector.block_start = ++detector.barriers;
  std::memset(detector.clock, 0, sizeof detector.clock);
  for (int t = 0; t < kMaxThreads; ++t) detector.clock[t][t % kWarpSize] = 1;
  t_active = true;
}

void end_block() { t_active = false; }

void on_block_barrier() { ++t_detector->barriers; }

void on_warp_barrier(int warp, unsigned mask) {
  auto* clocks = t_detector->clock + warp * kWarpSize;
  uint32_t joined[kWarpSize] = {};
  for (int l = 0; l < kWarpSize; ++l) {
    if ((mask >> l & 1) == 0) continue;
    for (int i = 0; i < kWarpSize; ++i) joined[i] = std::max(joined[i], clocks[l][i]);
  }
  for (int i = 0; i < kWarpSize; ++i) joined[i] += mask >> i & 1;
  for (int l = 0; l < kWarpSize; ++l) {
    if ((mask >> l & 1) != 0) std::memcpy(clocks[l], joined, sizeof joined);
  }
}

void access(Access kind, const volatile void* address, size_t bytes, const void* pc) {
  if (!t_active) return;
  Detector& detector = *t_detector;
  const size_t offset =
      reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(detector.begin);
  if (offset >= detector.bytes) return;
  const int thread = running_thread();
  const Moment now = {detector.barriers, detector.clock[thread][thread % kWarpSize],
                      static_cast<uint16_t>(thread), kind, pc};
  const size_t end = std::min(offset + bytes, detector.bytes);
  for (size_t i = offset; i < end; ++i) check_byte(detector, detector.cells[i], now, i);
}

}  // namespace simt::race

#define SIMT_TSAN_ACCESS(suffix, bytes)                                          \
  void __tsan_read##suffix(void* address) {                                      \
    simt::race::access(simt::race::Access::kRead, address, bytes, SIMT_CALLER);  \
  }                                                                              \
  void __tsan_write##suffix(void* address) {                                     \
    simt::race::access(simt::race::Access::kWrite, address, bytes, SIMT_CALLER); \
  }

extern "C" {
SIMT_TSAN_ACCESS(1, 1)
SIMT_TSAN_ACCESS(2, 2)
SIMT_TSAN_ACCESS(4, 4)
SIMT_TSAN_ACCESS(8, 8)
SIMT_TSAN_ACCESS(16, 16)
SIMT_TSAN_ACCESS(_unaligned2, 2)
SIMT_TSAN_ACCESS(_unaligned4, 4)
SIMT_TSAN_ACCESS(_unaligned8, 8)
SIMT_TSAN_ACCESS(_unaligned16, 16)
void __tsan_read_range(void* address, unsigned long bytes) {
  simt::race::access(simt::race::Access::kRead, address, bytes, SIMT_CALLER);
}
void __tsan_write_range(void* address, unsigned long bytes) {
  simt::race::access(simt::race::Access::kWrite, address, bytes, SIMT_CALLER);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// The guard of a function-local static.
unsigned char __tsan_atomic8_load(const volatile unsigned char* address, int) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}

// The kernel library is linked with --wrap for these.
void* __wrap_memcpy(void* to, const void* from, size_t bytes) {
  simt::race::access(simt::race::Access::kRead, from, bytes, SIMT_CALLER);
  simt::race::access(simt::race::Access::kWrite, to, bytes, SIMT_CALLER);
  return std::memcpy(to, from, bytes);
}
void* __wrap_memset(void* to, int value, size_t bytes) {
  simt::race::access(simt::race::Access::kWrite, to, bytes, SIMT_CALLER);
  return std::memset(to, value, bytes);
}
}

#endif  // SIMT_RACE
