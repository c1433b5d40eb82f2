"""Held-out quality of heads: accuracies by head and rank, tokens per step by replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ...drafting.trees import nested_from_traces
from ..replay import Ranks, replay
from .trainer import Trainer

MAX_RANK: Final = 32
SIZES: Final = (4, 8, 16, 32, 64)
_CHUNK: Final = 1024


@torch.inference_mode()
def head_ranks(trainer: Trainer, rows: npt.NDArray[np.int64]) -> Ranks:
    """[R, K]: the rank that each head gives to the true token at `rows` of the data; -1 where the
    answer has no such token, it is outside the draft vocabulary or MAX_RANK ranks are before it."""
    settings = trainer.settings
    matrix = trainer.matrix if trainer.lm_head is None else trainer.lm_head.detach()
    low = matrix.to(trainer.dtype)
    ranks = np.full((len(rows), settings.num_heads), -1, dtype=np.int16)
    for start in range(0, len(rows), _CHUNK):
        index = torch.from_numpy(rows[start : start + _CHUNK])
        x = trainer.data.hidden[index].float()
        y = trainer.heads(x, trainer.root_input(x, index), None, trainer.dtype)
        for k in range(settings.num_heads):
            targets = trainer.targets[index, k].long()
            logits = functional.linear(y[k], low).float()
            true = logits.gather(1, targets.clamp_min(0).unsqueeze(1))
            found = (logits > true).sum(1)
            found[(targets < 0) | (found >= MAX_RANK)] = -1
            ranks[start : start + len(index), k] = found.numpy()
    return ranks


def top_accuracies(
    ranks: Ranks, known: npt.NDArray[np.bool_], count: int = 10
) -> list[list[float]]:
    """[K][count]: how often the true token is among the first 1 ... `count` guesses of head k,
    over the rows where there is a true token (`known` [R, K])."""
    table = []
    for k in range(ranks.shape[1]):
        column = ranks[known[:, k], k]
        total = max(1, len(column))
        table.append([float(((column >= 0) & (column <= r)).sum() / total) for r in range(count)])
    return table


def evaluate(trainer: Trainer) -> dict[str, Any]:
    """Top-1 ... 10 accuracies by head and tokens per step by N on held-out conversations.

    Trees are grown on every other held-out conversation and replayed on the rest.
    """
    data = trainer.data
    chosen = np.flatnonzero(data.held_out)
    if len(chosen) < 2:
        return {}
    lengths = np.diff(data.starts)[chosen]
    rows = np.concatenate([np.arange(data.starts[i], data.starts[i + 1]) for i in chosen])
    ranks = head_ranks(trainer, rows)
    ends = np.cumsum(lengths)
    left = np.repeat(ends, lengths) - np.arange(len(rows)) - 1
    known = left[:, None] > np.arange(trainer.settings.num_heads)
    facts: dict[str, Any] = {"top": top_accuracies(ranks, known)}
    growing = np.repeat(np.arange(len(chosen)) % 2 == 0, lengths)
    trees = nested_from_traces(ranks[growing & (left > 0)], max(SIZES))
    replayed: Sequence[int] = lengths[1::2].tolist()
    facts["tokens_per_step"] = {
        str(n): replay(ranks[~growing], replayed, trees.tree(n)) for n in SIZES
    }
    return facts
