"""Distilled data in memory: rows of hidden states, their root tokens and the heads' targets."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from ..data.shards import Manifest, ShardInfo, read_shard
from .stack import IGNORED

_log = logging.getLogger("medusa_ext")
_MAX_HELD_OUT: Final = 400


@dataclass
class Dataset:
    """All conversations of a data directory.

    `hidden` [T, H] float16; `tokens` [T] int32, the answers one after another; conversation i is
    rows starts[i] ... starts[i + 1] - 1; `prompts[i]` are its prompt's tokens; `held_out[i]` keeps
    it out of training. `where` names each shard and its first conversation, for messages.
    """

    manifest: Manifest
    hidden: torch.Tensor
    tokens: torch.Tensor
    starts: npt.NDArray[np.int64]
    prompts: list[npt.NDArray[np.int32]]
    held_out: npt.NDArray[np.bool_]
    where: list[tuple[str, int]]

    @property
    def num_conversations(self) -> int:
        """Conversations, held-out ones included."""
        return len(self.starts) - 1

    def targets(self, num_heads: int) -> torch.Tensor:
        """[T, K] int32: the token that head k should guess at a row, IGNORED past the answer's
        end. Head k at row j guesses token j + 1 + k of the answer (token j is the root)."""
        total = len(self.tokens)
        targets = torch.full((total, num_heads), IGNORED, dtype=torch.int32)
        lengths = np.diff(self.starts)
        left = torch.from_numpy(np.repeat(self.starts[1:], lengths) - np.arange(total))
        for k in range(num_heads):
            rows = (left > k + 1).nonzero().squeeze(1)
            targets[rows, k] = self.tokens[rows + k + 1]
        return targets

    def rows(self, held_out: bool) -> npt.NDArray[np.int64]:
        """Rows of the training or of the held-out conversations that have a next token."""
        chosen = np.repeat(self.held_out == held_out, np.diff(self.starts))
        chosen[self.starts[1:] - 1] = False
        return np.flatnonzero(chosen)

    def conversation_of(self, row: int) -> int:
        """The conversation that a row belongs to."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def describe_row(self, row: int) -> str:
        """Where a row comes from, for messages."""
        number = self.conversation_of(row)
        shard, first = next(w for w in reversed(self.where) if w[1] <= number)
        return f"{shard}, conversation {number - first}, token {row - int(self.starts[number])}"


def load_dataset(folder: Path, max_tokens: int | None = None) -> Dataset:
    """Reads the shards that a directory's manifest lists, up to about `max_tokens` answer tokens.

    Raises:
        ValueError: the directory is empty or damaged.
        MemoryError: the hidden states do not fit into the free memory; says the sizes.
    """
    manifest = Manifest.load(folder)
    shards = _first_shards(manifest, max_tokens)
    total = sum(shard.tokens for shard in shards)
    if total == 0:
        raise ValueError(f"{folder}: needs at least one finished shard with answers, got none")
    _check_memory(total * manifest.hidden_size * 2, folder)
    hidden = torch.empty(total, manifest.hidden_size, dtype=torch.float16)
    tokens = np.empty(total, dtype=np.int32)
    starts, prompts, where = [0], [], []
    for shard in shards:
        where.append((shard.name, len(starts) - 1))
        for conversation in read_shard(folder / shard.name):
            begin, end = starts[-1], starts[-1] + len(conversation.answer)
            hidden[begin:end] = torch.from_numpy(conversation.hidden)
            tokens[begin:end] = conversation.answer
            starts.append(end)
            prompts.append(conversation.prompt)
    if starts[-1] != total:
        raise ValueError(f"{folder}: needs {total} tokens as its manifest says, got {starts[-1]}")
    held_out = _hold_out(len(prompts))
    return Dataset(
        manifest, hidden, torch.from_numpy(tokens), np.array(starts), prompts, held_out, where
    )


def _hold_out(count: int) -> npt.NDArray[np.bool_]:
    """Every 40th conversation, every 10th of few, up to 400."""
    every = 40 if count >= 800 else 10
    held_out: npt.NDArray[np.bool_] = np.arange(count) % every == every - 1
    held_out &= np.cumsum(held_out) <= _MAX_HELD_OUT
    return held_out


def _first_shards(manifest: Manifest, max_tokens: int | None) -> list[ShardInfo]:
    """The first shards with tokens; the last one takes the sum to `max_tokens` or over it."""
    chosen: list[ShardInfo] = []
    count = 0
    for shard in manifest.shards:
        if max_tokens is not None and count >= max_tokens:
            break
        if shard.tokens:
            chosen.append(shard)
            count += shard.tokens
    return chosen


def _check_memory(needed: int, folder: Path) -> None:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return
    if needed > free:
        raise MemoryError(
            f"{folder}: the hidden states need {needed / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free; use --max-tokens"
        )
