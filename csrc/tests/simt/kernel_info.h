// What a launch must know of a kernel: its library's shared memory, its bounds, its limits.
#pragma once

#include <vector>

#include "engine.h"

namespace simt {

// An `extern __shared__` array's storage: the most a launch may ask for, and a watched margin.
constexpr size_t kDynamicAreaBytes = kMaxSharedBytes + 1024;

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

}  // namespace simt
