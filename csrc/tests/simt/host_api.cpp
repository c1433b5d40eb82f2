// The host API: memory that faults right after its end, and constants of an imagined device.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "cuda_runtime.h"
#include "engine.h"
#include "simt.h"

namespace {

struct Allocation {
  size_t bytes;
  void* mapping;  // with its guards; not with AddressSanitizer, which has guards of its own
  size_t mapped;
};

std::mutex g_mutex;
std::map<const char*, Allocation>& allocations() {
  static std::map<const char*, Allocation> map;
  return map;
}

#if defined(__SANITIZE_ADDRESS__)
char* map_memory(Allocation* memory) {
  return static_cast<char*>(std::aligned_alloc(256, (memory->bytes + 255) / 256 * 256));
}
void unmap_memory(const char* pointer, const Allocation&) { std::free(const_cast<char*>(pointer)); }
#else
// The last byte, but for alignment, is right before a guard; another guard is in front.
char* map_memory(Allocation* memory) {
  constexpr size_t kPage = 4096, kGuard = 1 << 20;
  const size_t rounded = (memory->bytes + 15) / 16 * 16;
  const size_t usable = (rounded + kPage - 1) / kPage * kPage;
  memory->mapped = usable + 2 * kGuard;
  memory->mapping =
      mmap(nullptr, memory->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory->mapping == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(memory->mapping) + kGuard;
  mprotect(begin, usable, PROT_READ | PROT_WRITE);
  return begin + usable - rounded;
}
void unmap_memory(const char*, const Allocation& memory) { munmap(memory.mapping, memory.mapped); }
#endif

}  // namespace

cudaError_t simt::allocate(void** pointer, size_t bytes) {
  *pointer = nullptr;
  const cudaError_t status = forbid_in_capture();
  if (status != cudaSuccess || bytes == 0) return status;
  Allocation memory = {bytes, nullptr, 0};
  char* data = map_memory(&memory);
  if (data == nullptr) return cudaErrorMemoryAllocation;
  std::memset(data, simt::options().poison, bytes);
  const std::lock_guard<std::mutex> lock(g_mutex);
  allocations()[data] = memory;
  *pointer = data;
  return cudaSuccess;
}

bool simt::is_allocated(const void* pointer) {
  const char* byte = static_cast<const char*>(pointer);
  const std::lock_guard<std::mutex> lock(g_mutex);
  const auto after = allocations().upper_bound(byte);
  if (after == allocations().begin()) return false;
  const auto found = std::prev(after);
  return byte < found->first + found->second.bytes;
}

cudaError_t cudaFree(void* pointer) {
  const cudaError_t status = simt::forbid_in_capture();
  if (status != cudaSuccess || pointer == nullptr) return status;
  const std::lock_guard<std::mutex> lock(g_mutex);
  const auto found = allocations().find(static_cast<char*>(pointer));
  if (found == allocations().end()) return cudaErrorInvalidValue;
  unmap_memory(found->first, found->second);
  allocations().erase(found);
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorLaunchTimeout:
      return "the launch timed out and was terminated";
    default:
      return "unspecified launch failure";
  }
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidValue;
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = simt::kDefaultSharedBytes;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = simt::kMaxSharedBytes;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = simt::options().compute_capability / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = simt::options().compute_capability % 10;
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

namespace simt {

std::string compare_schedules(const std::function<std::vector<unsigned char>()>& run,
                              int num_seeds) {
  const Options saved = options();
  std::vector<unsigned char> expected;
  std::string difference;
  for (int i = 0; i < 2 * num_seeds && difference.empty(); ++i) {
    options().seed = static_cast<uint64_t>(i / 2);
    options().poison = i % 2 == 0 ? 0xFF : 0x3C;
    const std::vector<unsigned char> output = run();
    if (i == 0) expected = output;
    if (!last_report().empty()) difference = last_report();
    for (size_t b = 0; difference.empty() && b < expected.size(); ++b) {
      if (output.size() != expected.size() || output[b] != expected[b]) {
        char text[128];
        std::snprintf(text, sizeof text, "byte %zu differs under seed %d, poison %02x", b, i / 2,
                      options().poison);
        difference = text;
      }
    }
  }
  options() = saved;
  return difference;
}

}  // namespace simt
