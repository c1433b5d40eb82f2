"""The operators, for decoders of your own: `torch.ops.medusa.*` with types, docstrings and fakes.

B sequences, N nodes (root included), Q query heads, G KV heads, D head size, S cache rows,
V vocabulary, K Medusa heads. Indices are int32 tensors. Nodes come parents first; node 0 is the
root. A later node whose parent is -1 is padding: nothing sees or accepts it. What each operator
computes is written out in `medusa_ext.ops.reference`, which has the same functions.

Every function raises ValueError `op: argument requirement, got value` for what it cannot take.
Values of index tensors are checked on the CPU only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _torch  # noqa: F401  (importing it registers the operators)
from . import fakes, reference  # noqa: F401  (importing fakes registers them)

__all__ = [
    "Accepted",
    "Candidates",
    "accept",
    "accept_typical",
    "argmax",
    "candidates",
    "compact",
    "reference",
    "sample",
    "tree_attention",
]


class Candidates(NamedTuple):
    """What the heads propose."""

    tokens: Tensor
    """[B, N] int32: the tree's tokens."""
    top_ids: Tensor
    """[B, K, top_k] int32: best first, ties to the lowest id."""
    top_log_probs: Tensor
    """[B, K, top_k] float32: log-softmax over V."""


class Accepted(NamedTuple):
    """The accepted path of each tree."""

    path: Tensor
    """[B, N] int32: node indices from the root on, -1 after the end."""
    count: Tensor  # type: ignore[assignment]  # hides tuple.count
    """[B] int32: nodes on the path, the root included."""
    next_root: Tensor
    """[B] int32: the token that follows the last accepted node."""


def candidates(
    logits: Tensor,
    roots: Tensor,
    depths: Tensor,
    ranks: Tensor,
    *,
    top_k: int,
    token_map: Tensor | None = None,
) -> Candidates:
    """The heads' best tokens, arranged as a tree.

    Args:
        logits: [B, K, V] float32, bfloat16 or float16. Head k guesses the token of depth k + 1.
        roots: [B] tokens of node 0.
        depths: [N], 0 to K; a node of depth 0 takes the root token.
        ranks: [N], 0 to top_k - 1: which of the guesses of head depth - 1 a node takes.
        top_k: 1 to 32, at most V.
        token_map: [V] draft id -> token id, for heads over a part of the vocabulary.
    """
    return Candidates(
        *torch.ops.medusa.candidates(logits, roots, depths, ranks, top_k=top_k, token_map=token_map)
    )


def tree_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    parents: Tensor,
    *,
    scale: float | None = None,
    sliding_window: int = 0,
) -> Tensor:
    """Attention of every node over the prefix, its ancestors and itself.

    The result of a node equals, bit for bit on the CPU, what a tree of its own path gives.

    Args:
        q: [B, N, Q, D] float32, bfloat16 or float16, rotated by position length + depth.
        k_cache: [B, G, S, D] with Q a multiple of G; rows contiguous. The prefix is in rows
            0 … length - 1, node n in row length + n.
        v_cache: [B, G, S, D], type and strides as k_cache.
        lengths: [B], 0 to S - N.
        parents: [B, N], an earlier node or -1.
        scale: of the scores; 1 / sqrt(D) by default.
        sliding_window: 0, or how many positions a node sees, its own included.

    Returns:
        [B, N, Q, D] in q's type.
    """
    out: Tensor = torch.ops.medusa.tree_attention(
        q, k_cache, v_cache, lengths, parents, scale=scale, sliding_window=sliding_window
    )
    return out


def argmax(logits: Tensor) -> Tensor:
    """[..., V] float logits to [...] int32 ids; ties go to the lowest, NaN never wins.

    -1 where the largest number is not finite, or there is none.
    """
    out: Tensor = torch.ops.medusa.argmax(logits)
    return out


def sample(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> Tensor:
    """Draws a token per row, by noise that is a function of (seed, position, token) alone.

    So a position's token is the same whatever tree, batch or row it is drawn in.

    Args:
        logits: [..., V] float32, bfloat16 or float16.
        seeds: [...] int64.
        positions: [...] int32: the position of the token that is drawn.
        temperature: at least 1e-30.
        top_p: keep the most probable tokens that together have this probability; 1: all.
        top_k: keep the k most probable tokens, and those equal to the last; 0: all.

    Returns:
        [...] int32; -1 where the largest logit is not finite.
    """
    out: Tensor = torch.ops.medusa.sample(
        logits, seeds, positions, temperature=temperature, top_p=top_p, top_k=top_k
    )
    return out


def accept(tokens: Tensor, targets: Tensor, parents: Tensor) -> Accepted:
    """Walks each tree from its root to the child whose token is the node's target.

    With arg-max targets this is greedy decoding, with sampled ones exact sampling.

    Args:
        tokens: [B, N].
        targets: [B, N]: what the model says follows each node.
        parents: [B, N], an earlier node or -1.
    """
    return Accepted(*torch.ops.medusa.accept(tokens, targets, parents))


def accept_typical(
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
) -> Accepted:
    """The longest path whose tokens are all typical (Medusa, section 3.3.1), and a draw at its end.

    A token is typical where p > min(epsilon, delta * exp(-H)), with p the tempered softmax at its
    parent and H that distribution's entropy. Ties in length go to the larger sum of log p. Does
    not preserve the model's distribution.

    Args:
        tokens: [B, N].
        logits: [B, N, V] float32, bfloat16 or float16.
        parents: [B, N], an earlier node or -1.
        seeds: [B] int64.
        lengths: [B]: the root's position, which keys the noise of the draw.
        temperature: above 0; as `top_p` and `top_k`, for the draw as in `sample`.
        epsilon: 0 to 1.
        delta: 0 to 1.
    """
    return Accepted(
        *torch.ops.medusa.accept_typical(
            tokens,
            logits,
            parents,
            seeds,
            lengths,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            epsilon=epsilon,
            delta=delta,
        )
    )


def compact(caches: Sequence[Tensor], length: Tensor, path: Tensor, count: Tensor) -> None:
    """Moves the accepted path's rows together, in place: row length + path[i] to length + i.

    Args:
        caches: [B, G, S, D] each, of any type: K and V of every layer. Changed.
        length: [B]: rows of the prefix. Advanced by count.
        path: [B, P], ascending nodes.
        count: [B], 0 to P.
    """
    torch.ops.medusa.compact(list(caches), length, path, count)
