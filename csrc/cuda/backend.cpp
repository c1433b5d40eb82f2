// Device memory, streams and copies of the CUDA backend.
#include <cuda_runtime.h>

#include <new>
#include <stdexcept>
#include <string>

#include "cuda/context.h"
#include "cuda/table.h"

namespace medusa::cuda {
namespace {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string("cuda: ") + what + ": " + cudaGetErrorString(status));
}

class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(int64_t bytes)
      : message_("cuda: out of memory: needs " + std::to_string(bytes >> 20) + " MiB more") {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

Storage allocate(int device, int64_t bytes) {
  check(cudaSetDevice(device), "cudaSetDevice");
  void* data = nullptr;
  if (bytes > 0 && cudaMalloc(&data, static_cast<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    throw OutOfMemory(bytes);
  }
  return Storage(data, [](void* memory) { cudaFree(memory); });
}

/// A context with a stream, a workspace and a matrix product of its own.
class OwningContext : public CudaContext {
 public:
  explicit OwningContext(const BackendOptions& options)
      : storage_(allocate(options.device, options.workspace_bytes)),
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

 private:
  Storage storage_;
  std::unique_ptr<MatrixProduct> product_;
};

void copy(Context& context, void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, cuda_context(context).stream),
        "cudaMemcpyAsync");
}

}  // namespace

Backend make_backend(const BackendOptions& options) {
  check(cudaSetDevice(options.device), "cudaSetDevice");
  Backend backend;
  backend.kernels = &kernel_table();
  backend.allocate = [options](int64_t bytes) { return allocate(options.device, bytes); };
  backend.make_context = [options] { return std::make_unique<OwningContext>(options); };
  backend.copy_in = [](Context& context, void* device, const void* host, int64_t bytes) {
    copy(context, device, host, bytes, cudaMemcpyHostToDevice);
  };
  backend.copy_out = [](Context& context, void* host, const void* device, int64_t bytes) {
    copy(context, host, device, bytes, cudaMemcpyDeviceToHost);
  };
  backend.synchronize = [](Context& context) {
    check(cudaStreamSynchronize(cuda_context(context).stream), "cudaStreamSynchronize");
  };
  return backend;
}

}  // namespace medusa::cuda
