// Lends the operators CUDA: the calling thread's current stream, scratch from torch's allocator.
#include "ops/backend.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda_runtime.h>

#include "cuda/runtime/context.h"
#include "cuda/runtime/table.h"

namespace medusa::ops {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  const cudaError_t status = cudaDeviceGetAttribute(&value, which, device);
  TORCH_CHECK(status == cudaSuccess,
              "medusa: cudaDeviceGetAttribute: ", cudaGetErrorString(status));
  return value;
}

/// A context that borrows torch's stream and, until the next call of this thread, its memory: the
/// allocator gives freed memory to later work of the same stream alone.
struct OperatorContext : cuda::CudaContext {
  void prepare(int device) {
    const int major = attribute(cudaDevAttrComputeCapabilityMajor, device);
    TORCH_CHECK(major >= cuda::kMinCapability,
                "medusa: needs a device of compute capability 8.0 or ", "later, got ", major, ".",
                attribute(cudaDevAttrComputeCapabilityMinor, device));
    num_multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device);
    stream = c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream();
    memory = c10::cuda::CUDACachingAllocator::get()->allocate(kWorkspaceBytes);
    workspace = memory.get();
    workspace_bytes = kWorkspaceBytes;
  }

  c10::DataPtr memory;
};

Context& thread_context(c10::Device device) {
  thread_local OperatorContext context;
  context.prepare(device.index());
  return context;
}

const KernelTable& kernels() { return cuda::kernel_table(); }

[[maybe_unused]] const bool is_registered =
    register_backend(c10::DeviceType::CUDA, {kernels, thread_context});

}  // namespace
}  // namespace medusa::ops
