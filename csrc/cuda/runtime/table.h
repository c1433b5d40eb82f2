// The CUDA kernels as a backend of the decoder.
#pragma once

#include "core/backend.h"
#include "core/kernel_table.h"

namespace medusa::cuda {

/// The least major version of a device's compute capability.
constexpr int kMinCapability = 8;

/// Its entries throw std::runtime_error where a launcher returns an error.
const KernelTable& kernel_table();

struct BackendOptions {
  int device = 0;
  bool deterministic = false;
  /// Of each context: attention's partial results, a slice of the logits, of the gate and up rows.
  int64_t workspace_bytes = int64_t{64} << 20;
};

/// A context of this backend has its own stream, workspace and matrix-product state. Throws
/// std::runtime_error when the device cannot be used.
Backend make_backend(const BackendOptions& options = {});

}  // namespace medusa::cuda
