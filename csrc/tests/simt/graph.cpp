// Streams and graphs: a graph is the list of calls that a stream took while it was captured.
#include <functional>
#include <memory>
#include <vector>

#include "cuda_runtime.h"

struct CUgraph_st {
  std::vector<std::function<cudaError_t()>> calls;
};
struct CUgraphExec_st {
  std::vector<std::function<cudaError_t()>> calls;
};
struct CUstream_st {
  std::unique_ptr<CUgraph_st> graph;  // while it is captured
  bool is_spoilt = false;
};

namespace {

thread_local CUstream_st* g_captured = nullptr;  // by this thread

}  // namespace

namespace simt {

bool is_captured(cudaStream_t stream) { return stream != nullptr && stream->graph != nullptr; }

cudaError_t capture(cudaStream_t stream, std::function<cudaError_t()> call) {
  if (stream->is_spoilt) return cudaErrorStreamCaptureInvalidated;
  stream->graph->calls.push_back(std::move(call));
  return cudaSuccess;
}

cudaError_t forbid_in_capture() {
  if (g_captured == nullptr) return cudaSuccess;
  g_captured->is_spoilt = true;
  return cudaErrorStreamCaptureUnsupported;
}

}  // namespace simt

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = new CUstream_st;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (g_captured == stream) g_captured = nullptr;
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->graph != nullptr || g_captured != nullptr) {
    return cudaErrorStreamCaptureUnsupported;
  }
  stream->graph = std::make_unique<CUgraph_st>();
  stream->is_spoilt = false;
  g_captured = stream;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (stream == nullptr || g_captured != stream) return cudaErrorInvalidValue;
  g_captured = nullptr;
  const std::unique_ptr<CUgraph_st> captured = std::move(stream->graph);
  if (stream->is_spoilt) return cudaErrorStreamCaptureInvalidated;
  *graph = new CUgraph_st(*captured);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  *executable = new CUgraphExec_st{graph->calls};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return simt::enqueue(stream, [executable] {
    for (const auto& call : executable->calls) {
      const cudaError_t status = call();
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  // Only a graph would notice: its launch copies from where the host's memory is by then.
  if (simt::is_captured(stream) && !(simt::is_allocated(to) && simt::is_allocated(from))) {
    return simt::forbid_in_capture();
  }
  return simt::enqueue(stream, [=] {
    if (bytes != 0) memmove(to, from, bytes);
    return cudaSuccess;
  });
}
