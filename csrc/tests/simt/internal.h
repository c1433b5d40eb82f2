// What the engine's own files share.
#pragma once

#include <cstddef>
#include <vector>

#include "engine.h"
#include "race.h"

namespace simt {

constexpr unsigned kFullMask = 0xFFFFFFFFu;
#define SIMT_CALLER __builtin_return_address(0)

// ---- engine.cpp -------------------------------------------------------------------------------
// Combines the arguments that the lanes of `mask` brought: args[lane], for those lanes only.
using Combine = void (*)(void* const* args, unsigned mask);
// Puts the running lane to sleep until all lanes of `mask` have come, the last of which combines.
void collective(const char* name, unsigned mask, Combine combine, void* args, Site site,
                const void* pc);
int running_thread();  // its index in the block; -1 outside a kernel
// Whether the bytes are all in the shared memory that the launch asked for.
bool in_shared(const void* address, size_t bytes);

// ---- fault.cpp --------------------------------------------------------------------------------
// Ends the launch with a fault found in the running thread; printf-like. The places blamed before
// are printed after the message, with their source lines.
void blame(const char* label, const void* pc);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// As fail, without leaving the running thread; returns `error`.
int record_fault(int error, const char* format, ...) __attribute__((format(printf, 2, 3)));
int fault();  // the recorded fault's cudaError_t, 0 if none
// Around a launch: takes over the signals; gives them back, reports and returns the fault.
void begin_faults();
int end_faults(const void* kernel);
void set_watchdog(double seconds);  // 0 disarms it

// ---- engine.cpp, for fault.cpp ----------------------------------------------------------------
[[noreturn]] void leave_block();
void print_position(char* text, size_t size);  // "block (…) thread (…): "

// ---- kernel_info.cpp --------------------------------------------------------------------------
// What a launch must know of a kernel: its bounds, its limits, its library's shared memory.
struct KernelInfo {
  int max_threads;           // of __launch_bounds__, rounded up to 32; 0 if none
  size_t max_dynamic_bytes;  // of cudaFuncSetAttribute
  char* shared;              // the thread-local segment of the kernel's library
  size_t shared_bytes;
  std::vector<char*> dynamic;  // the `extern __shared__` arrays in it
};

KernelInfo find_kernel(const void* kernel);
// A cudaError_t, the reason being recorded as a fault.
int check_launch(const LaunchShape& shape, const KernelInfo& kernel);

// ---- async_copy.cpp ---------------------------------------------------------------------------
void async_begin_block();
void async_end_thread();  // fails if a copy has not been waited for
// Fails unless the bytes are in the block's shared memory, aligned to 16.
void check_shared(const char* name, const void* address, size_t bytes, const void* pc);

}  // namespace simt
