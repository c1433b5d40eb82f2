"""The operators' executable specification: plain torch, float64, one screen per function.

Signatures, shapes and meanings are those of `medusa_ext.ops`; nothing here is fast or checks its
arguments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _numbers(logits: Tensor) -> Tensor:
    """float64, with NaN as -infinity."""
    values = logits.double()
    return torch.where(values.isnan(), -math.inf, values)


def candidates(
    logits: Tensor,
    roots: Tensor,
    depths: Tensor,
    ranks: Tensor,
    *,
    top_k: int,
    token_map: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Per head a stable sort and a log-softmax; node n takes rank ranks[n] of head depth - 1."""
    values = _numbers(logits)
    ids = values.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]
    log_probs = values.log_softmax(-1).gather(-1, ids).float()
    top_ids = (ids if token_map is None else token_map[ids]).int()
    tokens = roots[:, None].repeat(1, len(depths))
    for node, (depth, rank) in enumerate(zip(depths.tolist(), ranks.tolist(), strict=True)):
        if depth > 0:
            tokens[:, node] = top_ids[:, depth - 1, rank]
    return tokens, top_ids, log_probs


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
    """Softmax over the keys at positions 0 … length + depth, less those before the window."""
    out = torch.empty(q.shape, dtype=torch.float64)
    group = q.shape[2] // k_cache.shape[1]
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    for b, length in enumerate(lengths.tolist()):
        for node in range(q.shape[1]):
            path = node_path(parents[b].tolist(), node)
            rows = [*range(length), *(length + n for n in path)]
            rows = rows[-sliding_window:] if sliding_window else rows
            k = k_cache[b, :, rows].double().repeat_interleave(group, 0)
            v = v_cache[b, :, rows].double().repeat_interleave(group, 0)
            scores = torch.einsum("hd,hsd->hs", q[b, node].double(), k) * scale
            out[b, node] = torch.einsum("hs,hsd->hd", scores.softmax(-1), v)
    return out


def node_path(parents: Sequence[int], node: int) -> list[int]:
    """Nodes from the root to `node`."""
    path: list[int] = []
    while node >= 0:
        path.insert(0, node)
        node = parents[node]
    return path


def argmax(logits: Tensor) -> Tensor:
    """The lowest id of the largest number; -1 where that is not finite, or all are NaN."""
    best = _numbers(logits).amax(-1, keepdim=True)
    ids = torch.arange(logits.shape[-1]).expand(logits.shape)
    first = torch.where(logits.double() == best, ids, logits.shape[-1]).amin(-1)
    return torch.where(best.squeeze(-1).isfinite(), first, -1).int()


def _mix_bits(x: int) -> int:
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31


def gumbel(seed: int, position: int, num_tokens: int) -> Tensor:
    """[V] float64 standard Gumbel noise of one draw, from 32 bits per token (SplitMix64)."""
    key = _mix_bits((seed + _GOLDEN * (position % (1 << 32) + 1)) & _MASK)
    bits = [_mix_bits((key + _GOLDEN * (i + 1)) & _MASK) >> 32 for i in range(num_tokens)]
    u = (torch.tensor(bits, dtype=torch.float64) + 0.5) / 2**32
    return -torch.log(-torch.log1p(-u.clamp(max=1 - 2**-24)))


def kept(logits: Tensor, *, temperature: float, top_p: float, top_k: int) -> Tensor:
    """[V] bool: tokens that top_k, then top_p leave. Tokens equal to the last one kept stay."""
    values = _numbers(logits)
    ordered = values.sort(descending=True).values
    threshold = ordered[min(top_k or len(ordered), len(ordered)) - 1]
    if top_p < 1:
        ordered = ordered[ordered >= threshold]
        mass = (ordered / temperature).softmax(-1).cumsum(-1)
        threshold = ordered[int((mass < top_p).sum().clamp(max=len(ordered) - 1))]
    return values >= threshold


def sample(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> Tensor:
    """arg-max of logits / temperature + noise over the tokens that are kept."""
    rows = logits.reshape(-1, logits.shape[-1])
    out = torch.empty(len(rows), dtype=torch.int32)
    keys = zip(seeds.reshape(-1).tolist(), positions.reshape(-1).tolist(), strict=True)
    for i, (row, (seed, position)) in enumerate(zip(rows, keys, strict=True)):
        keep = kept(row, temperature=temperature, top_p=top_p, top_k=top_k)
        noisy = _numbers(row) / temperature + gumbel(seed, position, len(row))
        out[i] = argmax(torch.where(keep, noisy, -math.inf))
    return out.reshape(logits.shape[:-1])


def accept(tokens: Tensor, targets: Tensor, parents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the root to the first child whose token is the node's target, until there is none."""
    paths = []
    for token, target, parent in zip(
        tokens.tolist(), targets.tolist(), parents.tolist(), strict=True
    ):
        path = [0]
        for node in range(1, len(token)):
            if parent[node] == path[-1] and token[node] == target[path[-1]]:
                path.append(node)
        paths.append(path)
    return _accepted(
        paths, tokens, [t[p[-1]] for t, p in zip(targets.tolist(), paths, strict=True)]
    )


def _accepted(
    paths: list[list[int]], tokens: Tensor, roots: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    padded = [path + [-1] * (tokens.shape[1] - len(path)) for path in paths]
    return (
        torch.tensor(padded, dtype=torch.int32).reshape(tokens.shape),
        torch.tensor([len(path) for path in paths], dtype=torch.int32),
        torch.tensor(roots, dtype=torch.int32),
    )


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
) -> tuple[Tensor, Tensor, Tensor]:
    """The best of all root-to-node paths whose every token is typical, then a draw at its end."""
    log_p = (_numbers(logits) / temperature).log_softmax(-1)
    entropy = -(log_p.exp() * log_p.clamp(min=-1e9)).sum(-1)
    bound = torch.minimum(torch.tensor(epsilon, dtype=torch.float64), delta * torch.exp(-entropy))
    paths, roots = [], []
    for b, (token, parent) in enumerate(zip(tokens.tolist(), parents.tolist(), strict=True)):
        best, best_key = [0], (1, 0.0)
        for node in range(1, len(token)):
            path = node_path(parent, node)
            steps = [float(log_p[b, parent[n], token[n]]) for n in path[1:]]
            typical = all(
                math.exp(step) > bound[b, parent[n]]
                for step, n in zip(steps, path[1:], strict=True)
            )
            if path[0] == 0 and typical and (len(path), sum(steps)) > best_key:
                best, best_key = path, (len(path), sum(steps))
        paths.append(best)
        draw = sample(
            logits[b, best[-1]],
            seeds[b],
            lengths[b] + len(best),
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
        )
        roots.append(int(draw))
    return _accepted(paths, tokens, roots)


def compact(caches: Sequence[Tensor], length: Tensor, path: Tensor, count: Tensor) -> None:
    """Reads all rows of a path before it writes any."""
    for b, (start, kept_rows) in enumerate(zip(length.tolist(), count.tolist(), strict=True)):
        sources = start + path[b, :kept_rows].long()
        for cache in caches:
            cache[b, :, start : start + kept_rows] = cache[b, :, sources].clone()
    length += count
