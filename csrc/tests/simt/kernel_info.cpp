#include <link.h>

#include <map>
#include <mutex>

#include "cuda_runtime.h"
#include "internal.h"

extern "C" void* __tls_get_addr(size_t* module_and_offset);

namespace simt {
namespace {

struct Module {
  uintptr_t code;  // an address in it, to find it by
  size_t tls_id = 0, tls_bytes = 0;
};

std::mutex g_mutex;
std::vector<void* (*)()>& dynamic_arrays() {
  static std::vector<void* (*)()> arrays;
  return arrays;
}
std::map<const void*, size_t>& dynamic_limits() {
  static std::map<const void*, size_t> limits;
  return limits;
}

int match_module(dl_phdr_info* info, size_t, void* data) {
  auto& module = *static_cast<Module*>(data);
  bool found = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & header = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    found |= header.p_type == PT_LOAD && module.code - begin < header.p_memsz;
    if (header.p_type == PT_TLS) module.tls_bytes = header.p_memsz;
  }
  if (found) module.tls_id = info->dlpi_tls_modid;
  if (!found) module.tls_bytes = 0;
  return found ? 1 : 0;
}

// Counts the no-ops that __launch_bounds__ puts in front of the function, which then start at an
// aligned address (-falign-functions=16): a no-op before that is the linker's padding.
int launch_bound(const void* kernel) {
#if defined(__x86_64__)
  using Instruction = unsigned char;
  constexpr Instruction kNoOp = 0x90;
#elif defined(__aarch64__)
  using Instruction = uint32_t;
  constexpr Instruction kNoOp = 0xD503201F;
#endif
  const auto* code = static_cast<const Instruction*>(kernel);
  int count = 0;
  while (count < kMaxThreads / kWarpSize && code[-count - 1] == kNoOp) ++count;
  while (count > 0 && reinterpret_cast<uintptr_t>(code - count) % 16 != 0) --count;
  return count * kWarpSize;
}

bool exceeds(dim3 size, unsigned x, unsigned y, unsigned z) {
  return size.x > x || size.y > y || size.z > z || size.x == 0 || size.y == 0 || size.z == 0;
}

}  // namespace

bool register_dynamic_shared(void* (*address)()) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  dynamic_arrays().push_back(address);
  return true;
}

KernelInfo find_kernel(const void* kernel) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  KernelInfo info = {};
  info.max_threads = launch_bound(kernel);
  const auto limit = dynamic_limits().find(kernel);
  info.max_dynamic_bytes = limit == dynamic_limits().end() ? kDefaultSharedBytes : limit->second;

  Module module = {reinterpret_cast<uintptr_t>(kernel)};
  dl_iterate_phdr(match_module, &module);
  if (module.tls_id == 0) return info;
  size_t module_and_offset[2] = {module.tls_id, 0};
  info.shared = static_cast<char*>(__tls_get_addr(module_and_offset));
  info.shared_bytes = module.tls_bytes;
  for (const auto& address : dynamic_arrays()) {
    auto* area = static_cast<char*>(address());
    const bool known = !info.dynamic.empty() && info.dynamic.back() == area;
    if (area >= info.shared && area < info.shared + info.shared_bytes && !known) {
      info.dynamic.push_back(area);
    }
  }
  return info;
}

int check_launch(const LaunchShape& shape, const KernelInfo& kernel) {
  const auto [grid, block, shared_bytes] = shape;
  constexpr int kError = cudaErrorInvalidConfiguration;
  const auto* own = reinterpret_cast<const char*>(&lane);
  if (own >= kernel.shared && own < kernel.shared + kernel.shared_bytes) {
    return record_fault(
        kError,
        "the kernel and the emulator are linked together: kernels need a shared library "
        "of their own");
  }
  if (exceeds(grid, 0x7FFFFFFF, 65535, 65535)) {
    return record_fault(
        kError, "launch: a grid of %u x %u x %u, allowed are 1 to 2147483647 x 65535 x 65535",
        grid.x, grid.y, grid.z);
  }
  const uint64_t num_threads = uint64_t{block.x} * block.y * block.z;
  if (exceeds(block, 1024, 1024, 64) || num_threads > kMaxThreads) {
    return record_fault(
        kError, "launch: a block of %u x %u x %u, allowed are 1 to 1024 x 1024 x 64, 1024 in all",
        block.x, block.y, block.z);
  }
  if (kernel.max_threads != 0 && num_threads > static_cast<unsigned>(kernel.max_threads)) {
    return record_fault(kError, "launch: %d threads, the kernel's __launch_bounds__ allow %d",
                        static_cast<int>(num_threads), kernel.max_threads);
  }
  if (shared_bytes > kernel.max_dynamic_bytes) {
    return record_fault(
        kError,
        "launch: %zu bytes of dynamic shared memory, allowed are %zu (more than 48 KiB "
        "need cudaFuncSetAttribute)",
        shared_bytes, kernel.max_dynamic_bytes);
  }
  return cudaSuccess;
}

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || static_cast<size_t>(value) > kMaxSharedBytes) return cudaErrorInvalidValue;
  const std::lock_guard<std::mutex> lock(g_mutex);
  dynamic_limits()[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

}  // namespace simt
