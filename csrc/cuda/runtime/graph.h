// A step's launches as one CUDA graph.
#pragma once

#include <functional>
#include <memory>

#include "core/backend.h"

namespace medusa::cuda {

/// Records what `work` enqueues on the context's stream. It must not allocate or wait, so it has
/// run once before: matrix products have chosen their algorithms and buffers have grown by then.
std::unique_ptr<Graph> capture_graph(Context& context, const std::function<void()>& work);

}  // namespace medusa::cuda
