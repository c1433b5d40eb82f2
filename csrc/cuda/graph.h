// A step's launches as one CUDA graph. Apart from the backend, since the emulator has no graphs.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "core/backend.h"
#include "cuda/context.h"

namespace medusa::cuda {

inline void check_graph(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string("cuda: ") + what + ": " + cudaGetErrorString(status));
}

class CapturedGraph : public Graph {
 public:
  explicit CapturedGraph(cudaGraph_t graph) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check_graph(status, "cudaGraphInstantiate");
  }
  ~CapturedGraph() override { cudaGraphExecDestroy(executable_); }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void launch(Context& context) override {
    check_graph(cudaGraphLaunch(executable_, cuda_context(context).stream), "cudaGraphLaunch");
  }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

/// Records what `work` enqueues on the context's stream. It must not allocate or wait, so it has
/// run once before: matrix products have chosen their algorithms and buffers have grown by then.
inline std::unique_ptr<Graph> capture_graph(Context& context, const std::function<void()>& work) {
  CudaContext& recorded = cuda_context(context);
  check_graph(cudaStreamBeginCapture(recorded.stream, cudaStreamCaptureModeThreadLocal),
              "cudaStreamBeginCapture");
  recorded.is_capturing = true;
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    recorded.is_capturing = false;
    cudaStreamEndCapture(recorded.stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  recorded.is_capturing = false;
  check_graph(cudaStreamEndCapture(recorded.stream, &graph), "cudaStreamEndCapture");
  return std::make_unique<CapturedGraph>(graph);
}

}  // namespace medusa::cuda
