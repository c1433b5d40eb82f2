// Makes "cuda" a device for models, in builds that have the CUDA backend.
#include "bindings/devices.h"
#include "cuda/runtime/table.h"

namespace medusa::bindings {
namespace {

/// The first visible device: CUDA_VISIBLE_DEVICES chooses another.
Backend make_cuda(const DeviceOptions& options) {
  cuda::BackendOptions backend_options;
  backend_options.deterministic = options.deterministic;
  return cuda::make_backend(backend_options);
}

[[maybe_unused]] const bool is_registered =
    register_device("cuda", {make_cuda, cuda::kernel_table});

}  // namespace
}  // namespace medusa::bindings
