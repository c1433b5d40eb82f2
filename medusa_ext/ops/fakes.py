"""The operators' shapes and types, which is all that torch.compile asks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _candidates(
    logits: Tensor,
    roots: Tensor,
    depths: Tensor,
    ranks: Tensor,
    *,
    top_k: int,
    token_map: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    sequences, heads, _ = logits.shape
    top_ids = roots.new_empty((sequences, heads, top_k))
    return (
        roots.new_empty((sequences, depths.shape[0])),
        top_ids,
        torch.empty_like(top_ids, dtype=torch.float32),
    )


def _tree_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    parents: Tensor,
    *,
    scale: float | None = None,
    sliding_window: int = 0,
) -> Tensor:
    return q.new_empty(q.shape)


def _argmax(logits: Tensor) -> Tensor:
    return logits.new_empty(logits.shape[:-1], dtype=torch.int32)


def _sample(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> Tensor:
    return logits.new_empty(logits.shape[:-1], dtype=torch.int32)


def _accepted(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    sequences = tokens.shape[0]
    return (
        tokens.new_empty(tokens.shape),
        tokens.new_empty((sequences,)),
        tokens.new_empty((sequences,)),
    )


def _accept(tokens: Tensor, targets: Tensor, parents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _accepted(tokens)


def _accept_typical(
    tokens: Tensor,
    logits: Tensor,
    parents: Tensor,
    seeds: Tensor,
    lengths: Tensor,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    epsilon: float = 0.09,
    delta: float = 0.3,
) -> tuple[Tensor, Tensor, Tensor]:
    return _accepted(tokens)


def _compact(caches: list[Tensor], length: Tensor, path: Tensor, count: Tensor) -> None:
    return None


_FAKES: dict[str, Callable[..., Any]] = {
    "candidates": _candidates,
    "tree_attention": _tree_attention,
    "argmax": _argmax,
    "sample": _sample,
    "accept": _accept,
    "accept_typical": _accept_typical,
    "compact": _compact,
}
for _name, _fake in _FAKES.items():
    torch.library.register_fake(f"medusa::{_name}", _fake)
