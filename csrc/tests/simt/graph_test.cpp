// Captured streams: what a graph keeps, and what a capture forbids.
#include <gtest/gtest.h>

#include "cuda_runtime.h"
#include "simt.h"

namespace {

__global__ void add_kernel(int* sum, const int* addend, int times) {
  if (threadIdx.x == 0) *sum += *addend * times;
}

cudaError_t add(cudaStream_t stream, int* sum, const int* addend, int times) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, add_kernel, sum, addend, times);
}

class Graph : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(cudaSuccess, cudaStreamCreate(&stream));
    ASSERT_EQ(cudaSuccess, cudaMalloc(&device, 2 * sizeof(int)));
    ASSERT_EQ(cudaSuccess, cudaMallocHost(&pinned, sizeof(int)));
    device[0] = 1;
    device[1] = 10;
    *pinned = 10;
  }
  void TearDown() override {
    cudaFree(device);
    cudaFreeHost(pinned);
    cudaStreamDestroy(stream);
  }
  void begin() {
    ASSERT_EQ(cudaSuccess, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  }
  cudaError_t end(cudaGraphExec_t* executable) {
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(stream, &graph);
    if (status != cudaSuccess) return status;
    EXPECT_EQ(cudaSuccess, cudaGraphInstantiate(executable, graph, 0));
    return cudaGraphDestroy(graph);
  }

  cudaStream_t stream = nullptr;
  int* device = nullptr;  // {sum, addend}
  int* pinned = nullptr;
};

TEST_F(Graph, KeepsArgumentsAndReadsMemoryAnew) {
  int times = 2;
  begin();
  EXPECT_EQ(cudaSuccess,
            cudaMemcpyAsync(device + 1, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
  EXPECT_EQ(cudaSuccess, add(stream, device, device + 1, times));
  times = 100;
  EXPECT_EQ(1, *device) << "a capture runs nothing";
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaSuccess, end(&executable));
  *pinned = 30;
  EXPECT_EQ(cudaSuccess, cudaGraphLaunch(executable, stream));
  EXPECT_EQ(61, *device);
  *pinned = 40;
  EXPECT_EQ(cudaSuccess, cudaGraphLaunch(executable, stream));
  EXPECT_EQ(141, *device);
  EXPECT_EQ(cudaSuccess, add(stream, device, device + 1, 1));
  EXPECT_EQ(181, *device) << "the stream is itself again";
  EXPECT_EQ(cudaSuccess, cudaGraphExecDestroy(executable));
}

TEST_F(Graph, HostFunctionsAreRecorded) {
  begin();
  EXPECT_EQ(cudaSuccess, cudaLaunchHostFunc(
                             stream, [](void* value) { *static_cast<int*>(value) += 5; }, pinned));
  EXPECT_EQ(cudaSuccess, cudaMemsetAsync(device, 0, sizeof(int), stream));
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaSuccess, end(&executable));
  EXPECT_EQ(10, *pinned);
  EXPECT_EQ(cudaSuccess, cudaGraphLaunch(executable, stream));
  EXPECT_EQ(15, *pinned);
  EXPECT_EQ(0, *device);
  EXPECT_EQ(cudaSuccess, cudaGraphExecDestroy(executable));
}

TEST_F(Graph, AllocationsWaitsAndPageableMemorySpoilACapture) {
  int pageable = 3;
  void* memory = nullptr;
  cudaGraphExec_t executable = nullptr;
  for (int call = 0; call < 6; ++call) {
    begin();
    const cudaError_t status =
        call == 0   ? cudaMalloc(&memory, 16)
        : call == 1 ? cudaFree(device)
        : call == 2 ? cudaStreamSynchronize(stream)
        : call == 3 ? cudaStreamQuery(stream)
        : call == 4
            ? cudaMemcpy(device, pinned, sizeof(int), cudaMemcpyHostToDevice)
            : cudaMemcpyAsync(device, &pageable, sizeof(int), cudaMemcpyHostToDevice, stream);
    EXPECT_EQ(cudaErrorStreamCaptureUnsupported, status) << call;
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, add(stream, device, device + 1, 1)) << call;
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(&executable)) << call;
  }
  EXPECT_EQ(cudaErrorInvalidValue, end(&executable)) << "there is no capture";
  EXPECT_EQ(cudaSuccess,
            cudaMemcpyAsync(device, &pageable, sizeof(int), cudaMemcpyHostToDevice, stream));
  EXPECT_EQ(3, *device);
}

}  // namespace
