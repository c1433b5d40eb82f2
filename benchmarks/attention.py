"""The attention operator against torch's, and against the memory's bandwidth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from medusa_ext import ops

from .rows import Row, interleaved, seconds_of
from .setting import Setting

# Heads and layers of the default model; all layers' caches together do not fit any cache.
_QUERY_HEADS, _KV_HEADS, _HEAD_SIZE, _LAYERS = 9, 3, 64, 30
_NODES: Final = 16

Caches = Iterable[Iterable[Tensor]]  # (keys, values) of each layer, [1, G, S, D]


def measure_attention(setting: Setting) -> Iterator[Row]:
    """tree_attention in bfloat16 against torch's SDPA with a mask, over all layers' caches.

    Both work on tensors as torch allocates them. The share of the read bandwidth is that of caches
    in huge pages, where sessions keep theirs.
    """
    if not setting.wants("attention"):
        return
    setting.begin("attention")
    context = setting.sizes.attention_context
    generator = torch.Generator().manual_seed(0)
    shape = (_LAYERS, 2, 1, _KV_HEADS, context + _NODES, _HEAD_SIZE)
    caches = [tuple(_normal(generator, *shape[2:]) for _ in range(2)) for _ in range(_LAYERS)]
    # numpy asks for huge pages.
    memory = torch.from_numpy(np.empty(math.prod(shape), dtype=np.int16)).view(torch.bfloat16)
    huge_caches = memory.normal_(generator=generator).view(shape).unbind()
    sides: dict[str, Callable[[], float | None]] = {
        "ours 16": _ours(generator, _NODES, caches, context),
        "ours 1": _ours(generator, 1, huge_caches, context),
        "SDPA": _sdpa(generator, caches, context, repeat_heads=False),
        "SDPA, heads repeated": _sdpa(generator, caches, context, repeat_heads=True),
    }
    with torch.inference_mode():
        seconds = interleaved(sides | setting.memory_side(), setting.sizes.repeats)
    yield _against_sdpa(seconds, context)
    yield _against_memory(seconds, context)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator).to(torch.bfloat16)


def _ours(
    generator: torch.Generator, count: int, caches: Caches, context: int
) -> Callable[[], float]:
    """Seconds per layer of `count` nodes."""
    q = _normal(generator, 1, count, _QUERY_HEADS, _HEAD_SIZE)
    lengths = torch.tensor([context], dtype=torch.int32)
    # The root's children have one child each: paths of all lengths, no plain chain.
    parents = torch.tensor([[-1, *[(i - 1) // 2 for i in range(1, count)]]], dtype=torch.int32)

    def run() -> None:
        for k, v in caches:
            ops.tree_attention(q, k, v, lengths, parents)

    return lambda: seconds_of(run) / _LAYERS


def _sdpa(
    generator: torch.Generator, caches: Caches, context: int, *, repeat_heads: bool
) -> Callable[[], float]:
    """Seconds per layer of torch's attention, which shares KV heads itself or is given copies."""
    q = _normal(generator, 1, _QUERY_HEADS, _NODES, _HEAD_SIZE)
    mask = torch.ones(_NODES, context + _NODES, dtype=torch.bool)
    mask[:, context:] = torch.ones(_NODES, _NODES, dtype=torch.bool).tril()
    groups = _QUERY_HEADS // _KV_HEADS

    def run() -> None:
        for k, v in caches:
            if repeat_heads:
                k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
            torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, enable_gqa=not repeat_heads
            )

    return lambda: seconds_of(run) / _LAYERS


def _against_sdpa(seconds: dict[str, float], context: int) -> Row:
    names = ("ours 16", "SDPA", "SDPA, heads repeated")
    return Row(
        "attention",
        f"tree_attention, {_NODES} nodes, context {context}, bfloat16, against torch SDPA with a "
        "mask",
        min(seconds["SDPA"], seconds["SDPA, heads repeated"]) / seconds["ours 16"],
        "x",
        3.0,
        details={f"{name}, µs": 1e6 * seconds[name] for name in names},
    )


def _against_memory(seconds: dict[str, float], context: int) -> Row:
    rate = 2 * _KV_HEADS * _HEAD_SIZE * 2 * context / seconds["ours 1"]
    read = seconds.get("memory")
    details = {"µs": 1e6 * seconds["ours 1"], "GB/s": rate / 1e9}
    if read is not None:
        details["DRAM read, GB/s"] = read / 1e9
    return Row(
        "attention",
        f"tree_attention, 1 node, context {context}, bfloat16: share of DRAM read bandwidth",
        rate / read if read is not None else None,
        "",
        0.7,
        details=details,
    )
