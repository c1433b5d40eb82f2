"""When a continuation ends: end tokens, stop strings, the length asked for, the cache.

Every condition is a function of the tokens so far, looked at one by one, so a step that emits
several tokens stops at the same token and for the same reason as plain decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

FinishReason = Literal["eos", "stop", "length", "cache", "cancelled", "error"]


class StopStrings:
    """Finds stop strings in text that arrives in pieces, and holds back what may become one.

    The text before the first match is released, in pieces; the match and all after it never is.
    """

    def __init__(self, strings: Sequence[str] = ()) -> None:
        """`strings` must be non-empty strings."""
        self._strings = tuple(strings)
        self._held = ""
        self.found = False

    def add(self, piece: str) -> str:
        """The text that `piece` settles: it can be no part of a stop string any more."""
        if not self._strings:
            return piece
        held = self._held + piece
        starts = [start for start in map(held.find, self._strings) if start >= 0]
        if starts:
            self.found = True
            self._held = ""
            return held[: min(starts)]
        settled = len(held) - self._open_length(held)
        self._held = held[settled:]
        return held[:settled]

    def flush(self) -> str:
        """What is still held back when the text ends."""
        held, self._held = self._held, ""
        return held

    def _open_length(self, text: str) -> int:
        """Length of the longest suffix of `text` that begins a stop string."""
        longest = max(len(string) for string in self._strings) - 1
        for length in range(min(longest, len(text)), 0, -1):
            suffix = text[-length:]
            if any(string.startswith(suffix) for string in self._strings):
                return length
        return 0


class StopTokens:
    """The conditions on token ids, on their number and on the cache."""

    def __init__(
        self, end_ids: frozenset[int], stop_ids: frozenset[int], max_tokens: int, max_position: int
    ) -> None:
        """end_ids end with "eos", stop_ids with "stop", the max_tokens-th token with "length".

        max_position is the first position without a cache row: a token there can be emitted but
        not fed, which ends with "cache".
        """
        self._end_ids = end_ids
        self._stop_ids = stop_ids
        self._max_tokens = max_tokens
        self._max_position = max_position

    def on_token(self, token: int) -> FinishReason | None:
        """Whether the token itself ends the continuation; it then adds no text."""
        if token in self._end_ids:
            return "eos"
        return "stop" if token in self._stop_ids else None

    def on_count(self, count: int, position: int) -> FinishReason | None:
        """Whether the continuation is full with `count` tokens, the last one at `position`."""
        if count >= self._max_tokens:
            return "length"
        return "cache" if position >= self._max_position else None
