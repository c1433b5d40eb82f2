// Carving a kernel's scratch out of the context's workspace, and how much each kernel needs.
#pragma once

#include <cstdint>

#include "core/params/attention.h"
#include "core/params/heads.h"
#include "core/params/linear.h"
#include "core/params/sampling.h"
#include "cuda/runtime/context.h"

namespace medusa::cuda {

constexpr int64_t kWorkspaceAlignment = 256;

constexpr int64_t aligned_bytes(int64_t bytes) {
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

/// Hands out pieces of memory, one after another.
class Workspace {
 public:
  explicit Workspace(void* data) : data_(static_cast<unsigned char*>(data)) {}

  template <typename T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(data_);
    data_ += aligned_bytes(count * static_cast<int64_t>(sizeof(T)));
    return piece;
  }
  void* rest() const { return data_; }

 private:
  unsigned char* data_;
};

/// Bytes of workspace that a call needs. Kernels not named here need none. `tree_attention` and
/// `linear` make do with less than `workspace_bytes` says, at least with the minimum: attention by
/// fewer splits, a linear layer row by row.
int64_t workspace_bytes(const ArgmaxParams& params);
int64_t workspace_bytes(const SampleParams& params);
int64_t workspace_bytes(const CandidatesParams& params);
int64_t workspace_bytes(const AcceptTypicalParams& params);
int64_t workspace_bytes(const TreeAttentionParams& params, int32_t num_multiprocessors);
int64_t min_workspace_bytes(const LinearParams& params);

}  // namespace medusa::cuda
