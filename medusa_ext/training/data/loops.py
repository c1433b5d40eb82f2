"""Where a text starts to go round in circles: the first repeated n-gram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LOOP_NGRAM: Final = 12


def loop_start(tokens: Sequence[int], ngram: int = LOOP_NGRAM) -> int:
    """The index of the first token of the first n-gram that occurred before in `tokens`
    (overlapping ones count); len(tokens) if there is none."""
    finder = LoopFinder(ngram)
    for index, token in enumerate(tokens):
        if finder.push(int(token)):
            return index + 1 - ngram
    return len(tokens)


class LoopFinder:
    """The same, one token at a time."""

    def __init__(self, ngram: int = LOOP_NGRAM) -> None:
        self._ngram = ngram
        self._window: list[int] = []
        self._seen: set[tuple[int, ...]] = set()

    def push(self, token: int) -> bool:
        """Adds a token; True if the n-gram that it ends was seen before."""
        self._window.append(token)
        if len(self._window) < self._ngram:
            return False
        gram = tuple(self._window[-self._ngram :])
        del self._window[: -self._ngram]
        if gram in self._seen:
            return True
        self._seen.add(gram)
        return False
