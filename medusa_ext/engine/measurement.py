"""Measures what a step costs on this machine: the curve that `tree="auto"` starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

from ..drafting.costs import CostCurve, rising
from ..drafting.trees import Tree
from .results import Clock
from .step import run_step

if TYPE_CHECKING:
    from .. import _C

_ROWS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_CONTEXT: Final = 96
_ROUNDS: Final = 10
_SECONDS_WANTED: Final = 1.5
# No tree can pay whose step takes this many plain steps: acceptance hardly ever gets there.
_HOPELESS: Final = 6.0


def measure(
    session: _C.Session,
    vocab_size: int,
    heads: _C.Heads | None = None,
    progress: Callable[[Sequence[int]], Sequence[int]] | None = None,
) -> CostCurve:
    """Measures the cost curve with a session of one sequence, whose text is lost.

    Each size counts with its fastest of several rounds over all sizes: other work on the machine
    only ever makes a step slower. Takes about two seconds; sizes that could never pay are left out.
    """
    tokens = np.random.default_rng(0).integers(0, vocab_size, _CONTEXT, dtype=np.int32)
    session.truncate(0, 0)
    session.set_active([0])
    session.set_sampling(0)
    session.prefill(0, tokens)
    limit = min(session.max_nodes, session.max_length - _CONTEXT)
    sizes = [size for size in _ROWS if size <= limit]
    _time_verify(session, 1)
    deadline = perf_counter() + _SECONDS_WANTED
    fastest: dict[int, float] = {}
    for size in progress(sizes) if progress else sizes:
        fastest[size] = _time_verify(session, size)
        if fastest[size] > _HOPELESS * fastest[1]:
            break
    for _ in range(_ROUNDS):
        for size, seconds in fastest.items():
            fastest[size] = min(seconds, _time_verify(session, size))
        if perf_counter() > deadline:
            break
    curve = CostCurve(list(fastest), rising(list(fastest.values())))
    if heads is not None:
        curve.heads = min(_time_heads(session, heads) for _ in range(_ROUNDS))
    session.truncate(0, 0)
    return curve


def _time_verify(session: _C.Session, num_nodes: int) -> float:
    """Seconds of a step with a chain of random tokens; the text stays as it was."""
    root, length = session.roots[0], session.lengths[0]
    tokens = np.arange(num_nodes, dtype=np.int32) + 1
    tokens[0] = root
    parents = np.arange(num_nodes, dtype=np.int32) - 1

    def propose() -> bool:
        session.set_tree(0, tokens, parents)
        return num_nodes > 1

    clock = Clock()
    _, seconds = run_step(session, propose, clock)
    session.truncate(0, length, root)
    return seconds - clock.seconds["propose"]


def _time_heads(session: _C.Session, heads: _C.Heads) -> float:
    tree = Tree([[0]]).native
    session.begin_step()
    start = perf_counter()
    session.draft_heads(heads, tree)
    return perf_counter() - start
