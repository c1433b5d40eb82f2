"""Tokens per step by replay: what a tree would accept, told from the ranks of the true tokens.

Greedy decoding is deterministic, so a recorded answer and the ranks that heads gave its tokens
decide every step of every tree, without running the model again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..drafting.trees import Tree

Ranks = npt.NDArray[np.int16]


class TreeWalk:
    """How deep a tree follows a row of ranks."""

    def __init__(self, tree: Tree) -> None:
        self._paths = frozenset(tree.paths)
        self.depth = tree.max_depth

    def accepted(self, ranks: Sequence[int]) -> int:
        """Nodes below the root on the path that takes these ranks, head by head."""
        path: tuple[int, ...] = ()
        for rank in ranks[: self.depth]:
            path = (*path, int(rank))
            if path not in self._paths:
                return len(path) - 1
        return len(path)


def replay(ranks: Ranks, lengths: Sequence[int], tree: Tree) -> float:
    """Tokens per step over answers.

    ranks [T, K]: row j of an answer holds the rank that head k gave to token j + 1 + k of the
    answer (token j is the root), negative where it is not known. lengths: tokens per answer, the
    rows of `ranks` one answer after another. The first token comes from the prefill; a step that
    would pass the answer's end counts only the tokens that are there.
    """
    walk = TreeWalk(tree)
    tokens = steps = start = 0
    for length in lengths:
        rows = ranks[start : start + length].tolist()
        start += length
        position = 0
        while position < length - 1:
            emitted = min(walk.accepted(rows[position]) + 1, length - 1 - position)
            position += emitted
            tokens += emitted
            steps += 1
    return tokens / steps if steps else 1.0
