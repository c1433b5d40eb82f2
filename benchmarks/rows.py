"""What a benchmark finds: rows of figures, with the bar they should reach where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter, sleep
from typing import Any

_PAUSE = 0.02  # lets the other side's threads fall asleep


@dataclass(frozen=True)
class Row:
    """One figure. `bar`: the least (or, with `at_most`, the largest) value wanted.

    `details`: the measured values that it comes from, by name with their unit. `note`: what has to
    be said, such as why there is no value (None).
    """

    section: str
    what: str
    value: float | None
    unit: str
    bar: float | None = None
    at_most: bool = False
    details: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None without a bar or a value."""
        if self.bar is None or self.value is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "met": self.met}


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    work()
    return perf_counter() - start


def interleaved(
    sides: Mapping[str, Callable[[], float | None]], repeats: int, lead_in: bool = True
) -> dict[str, float]:
    """Medians over `repeats` rounds in which every side measures itself once, in turns.

    A side returns its own figure, or None to be timed as a whole. A drifting machine hits all
    sides alike, so that their ratios hold where the values do not. With `lead_in` a turn begins
    with a call that does not count: the side before has left its own data in the caches and its
    threads may still spin. Sides that take longer than that matters go without.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            sleep(_PAUSE)
            if lead_in:
                side()
            start = perf_counter()
            figure = side()
            elapsed = perf_counter() - start
            values[name].append(elapsed if figure is None else figure)
    return {name: median(figures) for name, figures in values.items()}
