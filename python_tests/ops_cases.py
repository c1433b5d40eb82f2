"""Inputs and comparisons that the tests of the operators share."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from medusa_ext.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def ints(values: list[int] | list[list[int]]) -> Tensor:
    """An int32 tensor."""
    return torch.tensor(values, dtype=torch.int32)


def random_parents(num_nodes: int, generator: random.Random, width: int = 1000) -> list[int]:
    """A random tree; a small `width` makes it deep."""
    return [-1, *(generator.randrange(max(0, n - width), n) for n in range(1, num_nodes))]


@dataclass
class AttentionInputs:
    """Arguments of tree_attention."""

    q: Tensor
    k_cache: Tensor
    v_cache: Tensor
    lengths: Tensor
    parents: Tensor

    def args(self) -> tuple[Tensor, ...]:
        return self.q, self.k_cache, self.v_cache, self.lengths, self.parents


def attention_inputs(
    lengths: list[int],
    parents: list[list[int]],
    *,
    dtype: torch.dtype = torch.float32,
    heads: tuple[int, int] = (4, 2),
    head_size: int = 64,
    spare_rows: int = 0,
    seed: int = 0,
) -> AttentionInputs:
    """Random queries, and caches that just hold the longest sequence and `spare_rows` more."""
    generator = torch.Generator().manual_seed(seed)
    num_nodes = len(parents[0])
    rows = max(lengths) + num_nodes + spare_rows
    cache = torch.randn(2, len(lengths), heads[1], rows, head_size, generator=generator)
    q = torch.randn(len(lengths), num_nodes, heads[0], head_size, generator=generator)
    k, v = cache.to(dtype)
    return AttentionInputs(q.to(dtype), k, v, ints(lengths), ints(parents))


def visible(inputs: AttentionInputs, sliding_window: int = 0) -> Tensor:
    """[B, 1, N, S] bool: the dense mask that tree_attention never makes."""
    sequences, nodes = inputs.parents.shape
    mask = torch.zeros(sequences, 1, nodes, inputs.k_cache.shape[2], dtype=torch.bool)
    for b, length in enumerate(inputs.lengths.tolist()):
        for node in range(nodes):
            path = reference.node_path(inputs.parents[b].tolist(), node)
            rows = [*range(length), *(length + n for n in path)]
            mask[b, 0, node, rows[-sliding_window:] if sliding_window else rows] = True
    return mask


def plain_attention(inputs: AttentionInputs, sliding_window: int = 0) -> Tensor:
    """torch's own attention with a dense mask, in the inputs' type."""
    group = inputs.q.shape[2] // inputs.k_cache.shape[1]
    out = torch.nn.functional.scaled_dot_product_attention(
        inputs.q.transpose(1, 2),
        inputs.k_cache.repeat_interleave(group, 1),
        inputs.v_cache.repeat_interleave(group, 1),
        attn_mask=visible(inputs, sliding_window),
    )
    return out.transpose(1, 2)


def assert_as_good_as_plain(out: Tensor, plain: Tensor, expected: Tensor) -> None:
    """Errors at most twice plain torch's, plus 2 ulp of the largest magnitude (float64 truth)."""
    largest = float(expected.abs().max())
    ulp = torch.finfo(out.dtype).eps * 2.0 ** math.floor(math.log2(largest))
    bound = 2 * float((plain.double() - expected).abs().max()) + 2 * ulp
    errors = (out.double() - expected).abs()
    assert torch.isfinite(out).all()
    assert float(errors.max()) <= bound, (
        f"error {float(errors.max()):.3g} > {bound:.3g} at "
        f"{tuple(int(i) for i in torch.unravel_index(errors.argmax(), errors.shape))}"
    )
