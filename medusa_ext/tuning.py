"""What a step costs on this machine, by its rows: measured once and kept in the user cache."""

from __future__ import annotations

import hashlib
import json
import platform
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

from .loading.resolve import atomic_file, cache_dir
from .trees import Tree

if TYPE_CHECKING:
    from . import _C

_ROWS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_CONTEXT: Final = 96
_ROUNDS: Final = 10
_SECONDS_WANTED: Final = 1.5
# No tree can pay whose step takes this many plain steps: acceptance hardly ever gets there.
_HOPELESS: Final = 6.0
_VERSION: Final = 3


@dataclass
class CostCurve:
    """Seconds of a step by its rows, on one machine for one model.

    `rows` increases; `heads` is what one evaluation of the heads adds (0 without heads).
    """

    rows: list[int]
    seconds: list[float]
    heads: float = 0.0

    def step(self, num_rows: int) -> float:
        """Seconds of a step of `num_rows` rows: interpolated, and extended in proportion."""
        i = bisect_left(self.rows, num_rows)
        if i == len(self.rows):
            return self.seconds[-1] * num_rows / self.rows[-1]
        if self.rows[i] == num_rows or i == 0:
            return self.seconds[i]
        share = (num_rows - self.rows[i - 1]) / (self.rows[i] - self.rows[i - 1])
        return self.seconds[i - 1] + share * (self.seconds[i] - self.seconds[i - 1])


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
    session.set_sampling()
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


def rising(seconds: Sequence[float]) -> list[float]:
    """The largest sequence below `seconds` that never falls: a larger tree is never cheaper, so
    what is above a later value was disturbed."""
    return list(accumulate(reversed(seconds), min))[::-1]


def _time_verify(session: _C.Session, num_nodes: int) -> float:
    """Seconds of a step with a chain of random tokens; the text stays as it was.

    Compaction is part of it, since that is where a device is waited for.
    """
    root, length = session.roots[0], session.lengths[0]
    tokens = np.arange(num_nodes, dtype=np.int32) + 1
    tokens[0] = root
    parents = np.arange(num_nodes, dtype=np.int32) - 1
    session.begin_step()
    session.set_tree(0, tokens, parents)
    start = perf_counter()
    session.verify()
    session.accept()
    session.compact()
    seconds = perf_counter() - start
    session.truncate(0, length, root)
    return seconds


def _time_heads(session: _C.Session, heads: _C.Heads) -> float:
    tree = Tree([[0]]).native
    session.begin_step()
    start = perf_counter()
    session.draft_heads(heads, tree)
    return perf_counter() - start


def cache_path(key: Sequence[str]) -> Path:
    """Where the user cache keeps the curve for (model, formats, threads, instruction set, ...)."""
    facts = [str(_VERSION), platform.node(), platform.machine(), _processor(), *key]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]
    return cache_dir() / "costs" / f"{digest}.json"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), "")


def load_curve(path: Path) -> CostCurve | None:
    """The curve kept there; None where there is none that can be used."""
    try:
        values = json.loads(path.read_text())
        curve = CostCurve(
            [int(rows) for rows in values["rows"]],
            [float(seconds) for seconds in values["seconds"]],
            float(values["heads"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = len(curve.rows) == len(curve.seconds) and curve.rows[:1] == [1]
    return curve if fits and min(curve.seconds) > 0 else None


def save_curve(path: Path, curve: CostCurve) -> None:
    """Keeps a curve; a cache that cannot be written is no error."""
    values = {"rows": curve.rows, "seconds": curve.seconds, "heads": curve.heads}
    try:
        with atomic_file(path) as file:
            file.write(json.dumps(values).encode())
    except OSError:
        return
