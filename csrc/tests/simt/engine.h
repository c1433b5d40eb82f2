// The border between the shadow headers (compiled into kernels) and the engine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vector_types.h"

namespace simt {

constexpr int kWarpSize = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxSharedBytes = 227 * 1024;
constexpr size_t kDefaultSharedBytes = 48 * 1024;
// An `extern __shared__` array's storage: the most a launch may ask for, and a watched margin.
constexpr size_t kDynamicAreaBytes = kMaxSharedBytes + 1024;

// Where a collective stands in the source. Taken as a default argument, it is the caller's place.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};
#define SIMT_SITE ::simt::Site site = ::simt::Site::here()

// The running thread's lane; its other built-in variables are declared in cuda_runtime.h.
#define SIMT_FAST_THREAD_LOCAL thread_local __attribute__((tls_model("initial-exec")))
extern SIMT_FAST_THREAD_LOCAL int lane;

struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes;
};
// Runs every thread of the grid: each calls entry(context). Returns a cudaError_t.
int launch(const LaunchShape& shape, const void* kernel, void (*entry)(void*), void* context);

// Tells the engine of an `extern __shared__` array (see SIMT_DEFINE_DYNAMIC_SHARED).
bool register_dynamic_shared(void* (*address)());

// Each returns when all threads have come: the barrier with the number of true predicates.
int block_barrier(const char* name, bool predicate, Site site);
void warp_barrier(unsigned mask, Site site);
uint64_t shuffle(unsigned mask, uint64_t bits, int source_lane, Site site);
unsigned ballot(unsigned mask, bool predicate, Site site);
unsigned match_any(unsigned mask, uint64_t value, Site site);
uint32_t reduce(unsigned mask, uint32_t (*op)(uint32_t, uint32_t), uint32_t value, Site site);

// Fragment layouts of the PTX ISA manual; a[4], b[2] hold two 16-bit values each, d += a * b.
enum class Format { kHalf, kBfloat16 };
void mma_m16n8k16(Format format, float* d, const uint32_t* a, const uint32_t* b, Site site);
// Loads `count` (1, 2, 4) 8 x 8 matrices of 16-bit values; lane i gives the address of row i.
void ldmatrix(int count, bool trans, uint32_t* registers, const void* row, Site site);

// cp.async of 16 bytes, the last 16 - source_bytes of them zero.
void copy_async(void* shared, const void* global, int source_bytes);
void commit_async();
void wait_async(int pending_groups);

// Called before an atomic, called at `pc`, touches memory.
void atomic_access(const volatile void* address, size_t bytes, const void* pc);
[[noreturn]] void trap();

}  // namespace simt
