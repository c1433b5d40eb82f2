#include "cuda/runtime/graph.h"

#include "cuda/runtime/context.h"
#include "cuda/runtime/error.h"

namespace medusa::cuda {
namespace {

class CapturedGraph : public Graph {
 public:
  explicit CapturedGraph(cudaGraph_t graph) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }
  ~CapturedGraph() override { cudaGraphExecDestroy(executable_); }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void launch(Context& context) override {
    check(cudaGraphLaunch(executable_, cuda_context(context).stream), "cudaGraphLaunch");
  }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::unique_ptr<Graph> capture_graph(Context& context, const std::function<void()>& work) {
  const cudaStream_t stream = cuda_context(context).stream;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  return std::make_unique<CapturedGraph>(graph);
}

}  // namespace medusa::cuda
