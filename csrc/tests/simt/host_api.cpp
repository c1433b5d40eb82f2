// The host API: memory that faults right behind its end, and constants of an imagined device.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "cuda_runtime.h"
#include "engine.h"
#include "simt.h"

namespace {

[[maybe_unused]] std::mutex g_mutex;
// By the address handed out: the mapping it lies in.
[[maybe_unused]] std::map<void*, std::pair<void*, size_t>>& mappings() {
  static std::map<void*, std::pair<void*, size_t>> map;
  return map;
}

}  // namespace

cudaError_t simt::allocate(void** pointer, size_t bytes) {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
#if defined(__SANITIZE_ADDRESS__)
  *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*pointer == nullptr) return cudaErrorMemoryAllocation;
#else
  // The last byte, but for alignment, is right before a guard; another guard is in front.
  constexpr size_t kPage = 4096, kGuard = 1 << 20;
  const size_t rounded = (bytes + 15) / 16 * 16, usable = (rounded + kPage - 1) / kPage * kPage;
  const size_t mapped = usable + 2 * kGuard;
  void* memory =
      mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
  char* begin = static_cast<char*>(memory) + kGuard;
  mprotect(begin, usable, PROT_READ | PROT_WRITE);
  *pointer = begin + usable - rounded;
  const std::lock_guard<std::mutex> lock(g_mutex);
  mappings()[*pointer] = {memory, mapped};
#endif
  std::memset(*pointer, simt::options().poison, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
#if defined(__SANITIZE_ADDRESS__)
  std::free(pointer);
#else
  if (pointer == nullptr) return cudaSuccess;
  const std::lock_guard<std::mutex> lock(g_mutex);
  const auto found = mappings().find(pointer);
  if (found == mappings().end()) return cudaErrorInvalidValue;
  munmap(found->second.first, found->second.second);
  mappings().erase(found);
#endif
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
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
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
