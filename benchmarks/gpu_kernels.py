"""The operators against what torch offers for the same: masked attention and cache compaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from medusa_ext import ops
from medusa_ext.drafting.trees import default_trees

_SECONDS: Final = 0.15


@dataclass(frozen=True)
class AttentionShape:
    """Heads of one layer: Q query heads, G KV heads, head size D."""

    name: str
    num_query_heads: int
    num_kv_heads: int
    head_size: int


LLAMA_SHAPES: Final = (
    AttentionShape("Llama-7B", 32, 32, 128),
    AttentionShape("Llama-3-8B", 32, 8, 128),
)


def seconds_of(work: Callable[[], Any]) -> float:
    """Median seconds of one call, the device's work included."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=_SECONDS).median)


def device_bandwidth(device: str, num_bytes: int) -> float:
    """Bytes per second of reading and writing memory: a large copy on the device."""
    source = torch.empty(num_bytes // 4, dtype=torch.float32, device=device).fill_(1.0)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source))


def tree_parents(num_nodes: int, device: str) -> Tensor:
    """[1, N]: the parents of a sparse tree of published accuracies."""
    parents = default_trees(5).tree(num_nodes).parents
    return torch.tensor([parents], dtype=torch.int32, device=device)


def tree_mask(parents: Tensor, length: int) -> Tensor:
    """[N, length + N] booleans: what each node sees, as torch's attention wants it."""
    num_nodes = parents.shape[1]
    mask = torch.zeros(num_nodes, length + num_nodes, dtype=torch.bool)
    mask[:, :length] = True
    for node, parent in enumerate(parents[0].tolist()):
        if parent >= 0:
            mask[node] = mask[parent]
        mask[node, length + node] = True
    return mask.to(parents.device)


def bench_attention(
    shapes: Sequence[AttentionShape],
    node_counts: Sequence[int],
    lengths: Sequence[int],
    device: str,
    dtype: torch.dtype,
) -> list[dict[str, Any]]:
    """One row per shape, N and prefix length: microseconds of each side and the largest error."""
    rows = []
    for shape in shapes:
        for num_nodes in node_counts:
            for length in lengths:
                rows.append(_bench_attention(shape, num_nodes, length, device, dtype))
    return rows


def _bench_attention(
    shape: AttentionShape, num_nodes: int, length: int, device: str, dtype: torch.dtype
) -> dict[str, Any]:
    torch.manual_seed(0)
    parents = tree_parents(num_nodes, device)
    num_nodes = parents.shape[1]
    cache_shape = (1, shape.num_kv_heads, length + num_nodes, shape.head_size)
    k, v = (torch.randn(cache_shape, dtype=dtype, device=device) for _ in range(2))
    q_shape = (1, num_nodes, shape.num_query_heads, shape.head_size)
    q = torch.randn(q_shape, dtype=dtype, device=device)
    lengths = torch.tensor([length], dtype=torch.int32, device=device)
    mask = tree_mask(parents, length)
    q_first = q.transpose(1, 2).contiguous()
    grouped = shape.num_query_heads != shape.num_kv_heads

    def ours() -> Tensor:
        return ops.tree_attention(q, k, v, lengths, parents)

    def sdpa() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            q_first, k, v, attn_mask=mask, enable_gqa=grouped
        )

    error = (ours().float() - sdpa().transpose(1, 2).float()).abs().max().item()
    seconds = seconds_of(ours)
    row: dict[str, Any] = {
        "shape": shape.name,
        "num_nodes": num_nodes,
        "length": length,
        "tree_attention_us": 1e6 * seconds,
        "sdpa_us": 1e6 * seconds_of(sdpa),
        "cache_bytes_per_second": (k.nbytes + v.nbytes) / seconds,
        "max_error": error,
    }
    row["flex_attention_us"] = _flex_attention(q_first, k, v, mask, grouped, device)
    return row


def _flex_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, grouped: bool, device: str
) -> float | str:
    """Microseconds of FlexAttention, or why it was not timed."""
    if device != "cuda":
        return "not timed: it is compiled for GPUs here"
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def sees(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return mask[row, column]

    try:
        blocks = create_block_mask(sees, None, None, mask.shape[0], mask.shape[1], device=device)
        compiled: Any = torch.compile(flex_attention)
        work = lambda: compiled(q, k, v, block_mask=blocks, enable_gqa=grouped)  # noqa: E731
        return 1e6 * seconds_of(work)
    except Exception as error:  # its compiler refuses some shapes, each release others
        return f"not timed: {type(error).__name__}: {str(error).splitlines()[0][:100]}"


def bench_compact(
    num_layers: int, shape: AttentionShape, length: int, device: str, dtype: torch.dtype
) -> dict[str, Any]:
    """Moving an accepted path of four in all layers' caches, against index_select and copies."""
    torch.manual_seed(0)
    size = (1, shape.num_kv_heads, length + 64, shape.head_size)
    caches = [torch.randn(size, dtype=dtype, device=device) for _ in range(2 * num_layers)]
    path = torch.tensor([[0, 3, 17, 40]], dtype=torch.int32, device=device)
    count = torch.tensor([4], dtype=torch.int32, device=device)
    rows = (length + path[0]).long()
    start = torch.tensor([length], dtype=torch.int32, device=device)

    def select() -> None:
        for cache in caches:
            cache[:, :, length : length + 4] = cache.index_select(2, rows)

    def ours() -> None:
        # `compact` advances the length: each call gets a fresh one.
        ops.compact(caches, start.clone(), path, count)

    expected = [cache.index_select(2, rows) for cache in caches]
    ours()
    moved = [cache[:, :, length : length + 4] for cache in caches]
    # Before it is timed: moving the same path again moves other rows.
    is_exact = all(torch.equal(a, b) for a, b in zip(moved, expected, strict=True))
    return {
        "shape": shape.name,
        "num_layers": num_layers,
        "compact_us": 1e6 * seconds_of(ours),
        "index_select_us": 1e6 * seconds_of(select),
        "moved_bytes": sum(rows.nbytes for rows in moved),
        "is_exact": is_exact,
    }
