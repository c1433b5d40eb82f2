// Lends the operators the CPU: the best kernels of this machine (or those that MEDUSA_ISA names),
// as many threads as torch uses.
#include "ops/backend.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "cpu/runtime/context.h"
#include "cpu/runtime/isa.h"

namespace medusa::ops {
namespace {

const KernelTable& kernels() { return cpu::kernel_table(); }

/// One pool per calling thread: callers in several threads do not wait for each other.
Context& thread_context(c10::Device) {
  thread_local cpu::CpuContext context(1);
  context.set_num_threads(std::clamp(at::get_num_threads(), 1, cpu::ThreadPool::kMaxThreads));
  return context;
}

[[maybe_unused]] const bool is_registered =
    register_backend(c10::DeviceType::CPU, {kernels, thread_context});

}  // namespace
}  // namespace medusa::ops
