// What the acceptance operators return, and how full their trees are.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <tuple>

#include "core/params/step.h"

namespace medusa::ops {

struct AcceptOutputs {
  at::Tensor path;       // [B, N] int32
  at::Tensor count;      // [B] int32
  at::Tensor next_root;  // [B] int32
  at::Tensor num_nodes;  // [B] int32: N, padding included, which no walk reaches

  explicit AcceptOutputs(const at::Tensor& tokens)
      : path(at::empty(tokens.sizes(), tokens.options())),
        count(at::empty({tokens.size(0)}, tokens.options())),
        next_root(at::empty({tokens.size(0)}, tokens.options())),
        num_nodes(at::full({tokens.size(0)}, tokens.size(1), tokens.options())) {}

  void fill(AcceptParams& params) const {
    params.num_sequences = static_cast<int32_t>(path.size(0));
    params.max_nodes = params.max_path = static_cast<int32_t>(path.size(1));
    params.num_nodes = num_nodes.const_data_ptr<int32_t>();
    params.path = path.mutable_data_ptr<int32_t>();
    params.count = count.mutable_data_ptr<int32_t>();
    params.next_root = next_root.mutable_data_ptr<int32_t>();
  }

  std::tuple<at::Tensor, at::Tensor, at::Tensor> tuple() const { return {path, count, next_root}; }
};

}  // namespace medusa::ops
