"""What a step costs on this machine, by its rows: kept in the user cache, corrected by use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from ..files import cache_dir, json_text, processor_name, write_text

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


class LiveCosts:
    """A cost curve corrected by the steps that run. Sessions of a model share one.

    A size that has run counts with its own recent time. Any other takes the curve's, scaled like
    the nearest size that has run: so a curve measured while the machine was busy is soon corrected.
    Batches of different sizes (up to a factor of two) are kept apart: the same rows cost more when
    they are of more sequences. Any number of threads may read and observe.
    """

    def __init__(self, curve: CostCurve) -> None:
        self.curve = curve
        # Never changed in place: a reader keeps what it has found while writers take turns.
        self._seen: Mapping[int, Mapping[int, float]] = {}
        self._heads: Mapping[int, float] = {1: curve.heads}
        self._writing = threading.Lock()

    def has_seen(self, num_rows: int, batch: int = 1) -> bool:
        """Whether a step of so many rows has run."""
        return num_rows in self._seen.get(batch.bit_length(), {})

    def step(self, num_rows: int, batch: int = 1) -> float:
        """Seconds of a step of `num_rows` rows of `batch` sequences."""
        seen = self._seen.get(batch.bit_length())
        if not seen:
            return self.curve.step(num_rows)
        if num_rows in seen:
            return seen[num_rows]
        near = min(seen, key=lambda rows: max(rows / num_rows, num_rows / rows))
        return self.curve.step(num_rows) * seen[near] / self.curve.step(near)

    def observe(self, num_rows: int, seconds: float, batch: int = 1) -> None:
        """Takes in a measured step.

        A step cannot be too fast by accident, so the first one that is faster than expected is
        believed; one that was interrupted counts as at most twice too long.
        """
        with self._writing:
            expected = self.step(num_rows, batch)
            seen = self._seen.get(batch.bit_length(), {})
            rate = 0.2 if num_rows in seen else 1.0 if seconds < expected else 0.5
            value = expected + rate * (min(seconds, 2.0 * expected) - expected)
            self._seen = {**self._seen, batch.bit_length(): {**seen, num_rows: value}}

    def heads(self, batch: int) -> float:
        """Seconds of one evaluation of the heads for so many sequences."""
        heads = self._heads
        return heads[min(heads, key=lambda b: max(b / batch, batch / b))]

    def observe_heads(self, batch: int, seconds: float) -> None:
        """Takes in the time that the heads took.

        The curve knows one sequence: many may truly take several times as long.
        """
        with self._writing:
            expected = self.heads(batch)
            if batch not in self._heads:
                value = min(seconds, 4.0 * expected)
            else:
                rate = 0.5 if seconds < expected else 0.1
                value = expected + rate * (min(seconds, 2.0 * expected) - expected)
            self._heads = {**self._heads, batch: value}


def rising(seconds: Sequence[float]) -> list[float]:
    """The largest sequence below `seconds` that never falls: a larger tree is never cheaper, so
    what is above a later value was disturbed."""
    return list(accumulate(reversed(seconds), min))[::-1]


def cache_path(key: Sequence[str]) -> Path:
    """Where the user cache keeps the curve for (model, formats, threads, instruction set, ...)."""
    facts = [str(_VERSION), platform.node(), platform.machine(), processor_name(), *key]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]
    return cache_dir() / "costs" / f"{digest}.json"


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
    with contextlib.suppress(OSError):
        write_text(path, json_text(values))
