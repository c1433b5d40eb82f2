#include "cpu/runtime/backend.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "core/errors.h"
#include "cpu/runtime/context.h"
#include "cpu/runtime/isa.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

/// Zeroed pages straight from the kernel: a cache costs only the rows that are used, and large
/// arrays begin and may be in huge pages, which spares the weight stream most of its address
/// translations.
Storage map_pages(int64_t bytes) {
  const size_t mapped = static_cast<size_t>(bytes + kHugePage);
  void* pages = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw OutOfMemory("", bytes);
  const uintptr_t address = reinterpret_cast<uintptr_t>(pages);
  void* aligned = reinterpret_cast<void*>((address + kHugePage - 1) / kHugePage * kHugePage);
#ifdef MADV_HUGEPAGE
  madvise(aligned, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  return Storage(aligned, [pages, mapped](void*) { munmap(pages, mapped); });
}

Storage allocate(int64_t bytes) {
  if (bytes >= 2 * kHugePage) return map_pages(bytes);
  constexpr std::align_val_t kAlignment{64};
  void* data = ::operator new(static_cast<size_t>(bytes), kAlignment);
  return Storage(data, [](void* memory) { ::operator delete(memory, kAlignment); });
}

void copy(Context&, void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace

Backend make_backend(const std::string& isa) {
  Backend backend;
  backend.kernels = isa.empty() ? &kernel_table() : &kernel_table(isa);
  backend.allocate = allocate;
  backend.allocate_host = allocate;
  backend.make_context = [] { return std::make_unique<CpuContext>(1); };
  backend.copy_in = copy;
  backend.copy_out = copy;
  backend.synchronize = [](Context&) {};
  backend.wait_for = [](Context&, const int32_t*, int32_t) {};
  backend.samples_along_walk = true;
  return backend;
}

}  // namespace medusa::cpu
