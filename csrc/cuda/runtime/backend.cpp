// Device memory, streams and copies of the CUDA backend.
#include <cuda_runtime.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/errors.h"
#include "cuda/runtime/context.h"
#include "cuda/runtime/error.h"
#include "cuda/runtime/graph.h"
#include "cuda/runtime/table.h"

namespace medusa::cuda {
namespace {

constexpr int64_t kStagingBytes = int64_t{1} << 20;

/// Throws std::runtime_error that says why the device cannot be used.
void check_device(int device) {
  const cudaError_t status = cudaSetDevice(device);
  if (status != cudaSuccess) {
    cudaGetLastError();
    throw std::runtime_error(std::string("cuda: no device is present that can be used: ") +
                             cudaGetErrorString(status));
  }
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
        "cudaDeviceGetAttribute");
  if (major < kMinCapability) {
    throw std::runtime_error("cuda: needs a device of compute capability 8.0 or later, got " +
                             std::to_string(major) + "." + std::to_string(minor));
  }
}

Storage allocate(int device, int64_t bytes) {
  check(cudaSetDevice(device), "cudaSetDevice");
  void* data = nullptr;
  if (bytes > 0 && cudaMalloc(&data, static_cast<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    throw OutOfMemory("cuda: ", bytes);
  }
  return Storage(data, [](void* memory) { cudaFree(memory); });
}

Storage allocate_pinned(int64_t bytes) {
  void* data = nullptr;
  if (cudaMallocHost(&data, static_cast<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    throw OutOfMemory("cuda: ", bytes);
  }
  return Storage(data, [](void* memory) { cudaFreeHost(memory); });
}

/// A context with a stream, a workspace and a matrix product of its own.
class OwningContext : public CudaContext {
 public:
  explicit OwningContext(const BackendOptions& options)
      : device_(options.device),
        storage_(allocate(options.device, options.workspace_bytes)),
        staging_(allocate_pinned(kStagingBytes)),
        product_(make_matrix_product()) {
    int multiprocessors = 0;
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, options.device),
          "cudaDeviceGetAttribute");
    check(cudaStreamCreate(&stream), "cudaStreamCreate");
    num_multiprocessors = multiprocessors;
    deterministic = options.deterministic;
    workspace = storage_.get();
    workspace_bytes = options.workspace_bytes;
    matrix_product = product_.get();
  }
  ~OwningContext() override {
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }

  void activate() override { check(cudaSetDevice(device_), "cudaSetDevice"); }

  /// A copy into pageable memory would wait for the stream, and several copies several times:
  /// small ones land in pinned memory and reach `host` in `synchronize`.
  void copy_out(void* host, const void* device, int64_t bytes) {
    if (bytes == 0) return;
    void* to = host;
    if (staged_bytes_ + bytes <= kStagingBytes) {
      to = static_cast<unsigned char*>(staging_.get()) + staged_bytes_;
      staged_bytes_ += bytes;
      staged_.push_back({host, to, bytes});
    }
    check(cudaMemcpyAsync(to, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream),
          "cudaMemcpyAsync");
  }

  void synchronize() {
    const cudaError_t status = cudaStreamSynchronize(stream);
    if (status == cudaSuccess) {
      for (const Staged& copy : staged_) {
        std::memcpy(copy.host, copy.pinned, static_cast<size_t>(copy.bytes));
      }
    }
    staged_.clear();
    staged_bytes_ = 0;
    check(status, "cudaStreamSynchronize");
  }

 private:
  struct Staged {
    void* host;
    const void* pinned;
    int64_t bytes;
  };

  int device_;
  Storage storage_;
  Storage staging_;
  int64_t staged_bytes_ = 0;
  std::vector<Staged> staged_;
  std::unique_ptr<MatrixProduct> product_;
};

OwningContext& owning(Context& context) { return static_cast<OwningContext&>(context); }

/// From pageable memory: the bytes are taken before the call returns.
void copy_in(Context& context, void* device, const void* host, int64_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                        cuda_context(context).stream),
        "cudaMemcpyAsync");
}

/// Spins on the number, now and then asking whether the stream has failed or run dry.
void wait_for(Context& context, const int32_t* number, int32_t value) {
  constexpr int kSpinsPerQuery = 4096;
  const auto has_come = [&] { return __atomic_load_n(number, __ATOMIC_ACQUIRE) == value; };
  for (int spins = 1; !has_come(); ++spins) {
    if (spins % kSpinsPerQuery != 0) continue;
    const cudaError_t status = cudaStreamQuery(cuda_context(context).stream);
    if (status == cudaErrorNotReady) {
      cudaGetLastError();
      continue;
    }
    check(status, "a step");
    if (!has_come()) throw std::runtime_error("cuda: a step: ended without its results");
  }
}

}  // namespace

Backend make_backend(const BackendOptions& options) {
  check_device(options.device);
  Backend backend;
  backend.kernels = &kernel_table();
  backend.allocate = [options](int64_t bytes) { return allocate(options.device, bytes); };
  backend.allocate_host = allocate_pinned;
  backend.make_context = [options] { return std::make_unique<OwningContext>(options); };
  backend.copy_in = copy_in;
  backend.copy_out = [](Context& context, void* host, const void* device, int64_t bytes) {
    owning(context).copy_out(host, device, bytes);
  };
  backend.synchronize = [](Context& context) { owning(context).synchronize(); };
  backend.wait_for = wait_for;
  backend.capture = capture_graph;
  return backend;
}

}  // namespace medusa::cuda
