// tree_attention: attention of a tree's nodes over the prefix, their ancestors and themselves.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>

#include "core/token_tree.h"
#include "ops/backend.h"
#include "ops/check.h"

namespace medusa::ops {
namespace {

constexpr const char* kOp = "tree_attention";

/// k_cache and v_cache [B, G, S, D] as the kernels see them.
KvCache check_caches(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache) {
  for (const Argument& cache :
       {Argument{kOp, "k_cache", k_cache}, Argument{kOp, "v_cache", v_cache}}) {
    check_dense(cache, q.device());
    check_rank(cache, "[B, G, S, D]", 4);
    TORCH_CHECK_VALUE(cache.tensor.stride(3) == 1, kOp, ": ", cache.name,
                      " must have contiguous rows, got strides ", cache.tensor.strides());
  }
  KvCache cache;
  cache.dtype = check_float({kOp, "k_cache", k_cache});
  check_dtype({kOp, "v_cache", v_cache}, k_cache.scalar_type());
  check_sizes({kOp, "v_cache", v_cache}, "as k_cache", k_cache.sizes());
  TORCH_CHECK_VALUE(v_cache.strides() == k_cache.strides(), kOp,
                    ": v_cache must have k_cache's strides ", k_cache.strides(), ", got ",
                    v_cache.strides());
  check_range(kOp, "k_cache.shape[1]", k_cache.size(1), 1, INT32_MAX);
  cache.num_kv_heads = static_cast<int32_t>(k_cache.size(1));
  cache.head_size = static_cast<int32_t>(k_cache.size(3));
  cache.num_rows = static_cast<int32_t>(k_cache.size(2));
  cache.slot_stride = k_cache.stride(0);
  cache.head_stride = k_cache.stride(1);
  cache.row_stride = k_cache.stride(2);
  // Attention reads the cache alone.
  cache.k = const_cast<void*>(k_cache.const_data_ptr());
  cache.v = const_cast<void*>(v_cache.const_data_ptr());
  return cache;
}

void check_queries(const at::Tensor& q, const at::Tensor& k_cache) {
  TORCH_CHECK_VALUE(q.size(0) == k_cache.size(0), kOp, ": k_cache must have q's B = ", q.size(0),
                    " sequences, got ", k_cache.sizes());
  TORCH_CHECK_VALUE(q.size(3) == k_cache.size(3), kOp,
                    ": k_cache must have q's head size D = ", q.size(3), ", got ", k_cache.sizes());
  TORCH_CHECK_VALUE(q.size(2) > 0 && q.size(2) % k_cache.size(1) == 0, kOp,
                    ": q must have a multiple of the ", k_cache.size(1), " KV heads, got ",
                    q.size(2), " heads");
  check_range(kOp, "q.shape[1]", q.size(1), 1, TokenTree::kMaxNodes);
  check_range(kOp, "k_cache.shape[2]", k_cache.size(2), q.size(1), INT32_MAX);
  TORCH_CHECK_VALUE(q.size(3) % 8 == 0 && q.size(3) >= 8 && q.size(3) <= 256, kOp,
                    ": q must have a head size that is a multiple of 8 up to 256, got ", q.size(3));
}

/// The rows of B trees, in one int32 buffer and one for the masks.
struct TreeRows {
  RowTable table;
  at::Tensor indices;
  at::Tensor ancestors;
};

TreeRows make_rows(const Call& call, const at::Tensor& lengths, const at::Tensor& parents) {
  TreeRowsParams params;
  const int64_t num_sequences = parents.size(0), num_rows = parents.numel();
  params.num_sequences = static_cast<int32_t>(num_sequences);
  params.num_nodes = static_cast<int32_t>(parents.size(1));
  params.mask_words = mask_words_for(params.num_nodes);
  TreeRows rows;
  rows.indices = at::empty({3 * num_rows + 2 * num_sequences + 1}, lengths.options());
  rows.ancestors = at::empty({num_rows, params.mask_words}, lengths.options().dtype(at::kLong));
  params.parents = parents.const_data_ptr<int32_t>();
  params.lengths = lengths.const_data_ptr<int32_t>();
  params.sequences = rows.indices.mutable_data_ptr<int32_t>();
  params.positions = params.sequences + num_rows;
  params.nodes = params.positions + num_rows;
  params.first_rows = params.nodes + num_rows;
  params.cache_slots = params.first_rows + num_sequences + 1;
  params.ancestors = reinterpret_cast<uint64_t*>(rows.ancestors.mutable_data_ptr<int64_t>());
  call.kernels().tree_rows(call.context(), params);

  RowTable& table = rows.table;
  table.num_rows = static_cast<int32_t>(num_rows);
  table.num_sequences = params.num_sequences;
  table.mask_words = params.mask_words;
  table.sequences = params.sequences;
  table.positions = params.positions;
  table.nodes = params.nodes;
  table.first_rows = params.first_rows;
  table.cache_slots = params.cache_slots;
  table.lengths = params.lengths;
  table.ancestors = params.ancestors;
  return rows;
}

at::Tensor tree_attention(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache,
                          const at::Tensor& lengths, const at::Tensor& parents,
                          c10::optional<double> scale, int64_t sliding_window) {
  const c10::Device device = q.device();
  const Call call(kOp, "q", device);
  check_dense({kOp, "q", q}, device);
  check_rank({kOp, "q", q}, "[B, N, Q, D]", 4);
  TreeAttentionParams params;
  params.q_dtype = check_float({kOp, "q", q});
  params.cache = check_caches(q, k_cache, v_cache);
  check_queries(q, k_cache);
  const at::Tensor length_rows = check_indices({kOp, "lengths", lengths}, "[B]", q.size(0), device);
  check_values({kOp, "lengths", length_rows}, 0, k_cache.size(2) - q.size(1));
  const at::Tensor parent_rows =
      check_indices({kOp, "parents", parents}, "[B, N]", q.sizes().slice(0, 2), device);
  check_parents({kOp, "parents", parent_rows});
  check_range(kOp, "sliding_window", sliding_window, 0, INT32_MAX);

  const at::Tensor queries = q.contiguous();
  at::Tensor out = at::empty(q.sizes(), queries.options());
  if (out.numel() == 0) return out;
  const TreeRows rows = make_rows(call, length_rows, parent_rows);
  params.rows = rows.table;
  params.num_query_heads = static_cast<int32_t>(q.size(2));
  params.sliding_window = static_cast<int32_t>(sliding_window);
  params.scale = static_cast<float>(scale ? *scale : 1 / std::sqrt(static_cast<double>(q.size(3))));
  params.q = queries.const_data_ptr();
  params.q_row_stride = q.size(2) * q.size(3);
  params.out = out.mutable_data_ptr();
  call.kernels().tree_attention(call.context(), params);
  return out;
}

TORCH_LIBRARY_FRAGMENT(medusa, library) {
  library.def(
      "tree_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor lengths, Tensor parents, *, "
      "float? scale=None, int sliding_window=0) -> Tensor");
  library.impl("tree_attention", c10::DispatchKey::CompositeExplicitAutograd,
               TORCH_FN(tree_attention));
}

}  // namespace
}  // namespace medusa::ops
