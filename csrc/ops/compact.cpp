// compact: moves the cache rows of the accepted path together, in place.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <string>

#include "core/token_tree.h"
#include "ops/backend.h"
#include "ops/check.h"

namespace medusa::ops {
namespace {

constexpr const char* kOp = "compact";

/// [B, G, S, D] of any type, each row's elements together, no two elements in one place.
void check_cache(const Argument& cache, int64_t num_sequences, c10::Device device) {
  check_dense(cache, device);
  check_rank(cache, "[B, G, S, D]", 4);
  const at::Tensor& tensor = cache.tensor;
  TORCH_CHECK_VALUE(tensor.size(0) == num_sequences, kOp, ": ", cache.name,
                    " must have B = ", num_sequences, " sequences, got ", tensor.sizes());
  TORCH_CHECK_VALUE(tensor.is_non_overlapping_and_dense() ||
                        (tensor.stride(3) == 1 && tensor.stride(2) >= tensor.size(3) &&
                         tensor.stride(1) > 0 && tensor.stride(0) > 0),
                    kOp, ": ", cache.name, " must not overlap itself, got strides ",
                    tensor.strides());
  TORCH_CHECK_VALUE(tensor.size(3) <= 1 || tensor.stride(3) == 1, kOp, ": ", cache.name,
                    " must have contiguous rows, got strides ", tensor.strides());
}

/// Paths ascend and stay, like count, inside every cache. Read on the host only.
void check_paths(const at::Tensor& path, const at::Tensor& count, const at::Tensor& length,
                 int64_t num_rows) {
  if (!path.is_cpu()) return;
  const int64_t max_path = path.size(1);
  for (int64_t b = 0; b < path.size(0); ++b) {
    const int32_t* nodes = path.const_data_ptr<int32_t>() + b * max_path;
    const int64_t nodes_count = count.const_data_ptr<int32_t>()[b];
    const int64_t valid = length.const_data_ptr<int32_t>()[b];
    check_range(kOp, "count", nodes_count, 0, max_path);
    check_range(kOp, "length", valid, 0, num_rows);
    for (int64_t i = 0; i < nodes_count; ++i) {
      TORCH_CHECK_VALUE(nodes[i] > (i == 0 ? -1 : nodes[i - 1]), kOp,
                        ": path must hold ascending nodes, got ", nodes[i], " at [", b, ", ", i,
                        "]");
      TORCH_CHECK_VALUE(valid + nodes[i] < num_rows, kOp, ": path must stay inside the ", num_rows,
                        " cache rows, got node ", nodes[i], " behind length ", valid);
    }
  }
}

CompactParams cache_params(const at::Tensor& cache, void* const* data) {
  const int64_t bytes = cache.element_size();
  CompactParams params;
  params.num_caches = 1;
  params.caches = data;
  params.num_kv_heads = static_cast<int32_t>(cache.size(1));
  params.row_bytes = cache.size(3) * bytes;
  params.row_stride = cache.stride(2) * bytes;
  params.head_stride = cache.stride(1) * bytes;
  params.slot_stride = cache.stride(0) * bytes;
  return params;
}

/// The caches' addresses where their device can read them.
at::Tensor pointer_table(at::TensorList caches, c10::Device device) {
  const auto size = static_cast<int64_t>(caches.size());
  const at::Tensor table = at::empty({size}, at::TensorOptions().dtype(at::kLong));
  int64_t* pointers = table.mutable_data_ptr<int64_t>();
  for (const at::Tensor& cache : caches) {
    *pointers++ = reinterpret_cast<int64_t>(cache.mutable_data_ptr());
  }
  return device.is_cpu() ? table : table.to(device, at::kLong, /*non_blocking=*/true);
}

bool same_geometry(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.strides() == b.strides() && a.itemsize() == b.itemsize();
}

void compact(at::TensorList caches, const at::Tensor& length, const at::Tensor& path,
             const at::Tensor& count) {
  const c10::Device device = length.device();
  const Call call(kOp, "length", device);
  check_rank({kOp, "path", path}, "[B, P]", 2);
  const int64_t num_sequences = path.size(0);
  const at::Tensor path_rows = check_indices({kOp, "path", path}, "[B, P]", path.sizes(), device);
  const at::Tensor count_rows = check_indices({kOp, "count", count}, "[B]", num_sequences, device);
  check_indices({kOp, "length", length}, "[B]", num_sequences, device);
  TORCH_CHECK_VALUE(length.is_contiguous(), kOp, ": length must be contiguous, got strides ",
                    length.strides());
  for (size_t i = 0; i < caches.size(); ++i) {
    const std::string name = "caches[" + std::to_string(i) + "]";
    check_cache({kOp, name.c_str(), caches[i]}, num_sequences, device);
    check_paths(path_rows, count_rows, length, caches[i].size(2));
  }
  if (num_sequences == 0) return;

  // Caches of one geometry (K and V of every layer) move in one kernel.
  const at::Tensor table = pointer_table(caches, device);
  auto* const data = static_cast<void* const*>(table.const_data_ptr());
  size_t begin = 0;
  do {
    size_t end = begin;
    CompactParams params;
    if (begin < caches.size()) {
      params = cache_params(caches[begin], data + begin);
      while (end < caches.size() && same_geometry(caches[begin], caches[end])) ++end;
    }
    params.num_caches = static_cast<int32_t>(end - begin);
    params.num_sequences = static_cast<int32_t>(num_sequences);
    params.max_path = static_cast<int32_t>(path.size(1));
    params.path = path_rows.const_data_ptr<int32_t>();
    params.count = count_rows.const_data_ptr<int32_t>();
    params.length = length.mutable_data_ptr<int32_t>();
    params.advance = end == caches.size();
    call.kernels().compact(call.context(), params);
    begin = end;
  } while (begin < caches.size());
}

TORCH_LIBRARY_FRAGMENT(medusa, library) {
  library.def("compact(Tensor(a!)[] caches, Tensor(b!) length, Tensor path, Tensor count) -> ()");
  library.impl("compact", c10::DispatchKey::CompositeExplicitAutograd, TORCH_FN(compact));
}

}  // namespace
}  // namespace medusa::ops
