"""How much of a waiting prompt may share a step with those who decode."""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Final

MOST_ROWS: Final = 512  # of prompts in a step: from there on rows only cost their arithmetic
_LEAST_ROWS: Final = 8  # a prompt always gets on
_FIRST_ROWS: Final = 16
_REMEMBERED: Final = 32  # steps without prompts
_RATE: Final = 0.3


class RowBudget:
    """Rows of prompts per step, so that it takes at most `max_slowdown` times as long as others.

    What a row costs is learned from the steps that run, so it follows the context that prompts
    have reached and the machine's other work. Seconds are those of whole steps.
    """

    def __init__(self, max_slowdown: float) -> None:
        """max_slowdown: 1 or more; infinity: prompts go first. ValueError below 1."""
        if not max_slowdown >= 1.0:
            raise ValueError(f"max_slowdown: needs a number of 1 or more, got {max_slowdown}")
        self._max_slowdown = max_slowdown
        self._without: deque[float] = deque(maxlen=_REMEMBERED)
        self._row_seconds: float | None = None
        self._tried = _FIRST_ROWS // 2

    @property
    def prompts_first(self) -> bool:
        """Whether decoding waits until all prompts are in."""
        return math.isinf(self._max_slowdown)

    @property
    def rows(self) -> int:
        """Rows of prompts that the next step may take beside the texts that grow."""
        # Twice as many as were tried at most: one lucky step must not stall the next.
        most = min(MOST_ROWS, 2 * self._tried)
        if not self._without or self._row_seconds is None:
            return most
        spare = (self._max_slowdown - 1.0) * median(self._without)
        wanted = spare / self._row_seconds if self._row_seconds > 0 else most
        return max(_LEAST_ROWS, min(most, int(wanted)))

    def observe(self, num_rows: int, seconds: float) -> None:
        """Takes in a step of those who decode that fed `num_rows` rows of prompts."""
        if num_rows == 0:
            self._without.append(seconds)
            return
        self._tried = max(self._tried, num_rows)
        if not self._without:
            return
        cost = max(seconds - median(self._without), 0.0) / num_rows
        if self._row_seconds is None:
            self._row_seconds = cost
            return
        # An interruption counts as twice too long at most.
        if self._row_seconds > 0:
            cost = min(cost, 2.0 * self._row_seconds)
        self._row_seconds += _RATE * (cost - self._row_seconds)
