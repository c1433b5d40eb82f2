"""A session: the caches and texts of a batch of sequences, kept between generations."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..text.prompts import EncodedPrompt

if TYPE_CHECKING:
    from .model import Model


class Session:
    """Sequences that can be continued. One thread at a time; another's use raises RuntimeError.

    Made by `Model.session`. A sequence's text is what its cache holds, and one last token, decided
    but not fed yet: the next generation feeds it first.
    """

    def __init__(
        self, model: Model, batch: int, max_length: int, max_nodes: int, kv_memory: int = 0
    ) -> None:
        from .. import _C

        self.model = model
        self.batch = batch
        self.max_length = max_length
        self.max_nodes = max_nodes
        self.native = _C.Session(
            model.native, batch, max_length, max_nodes, model.kv_dtype, kv_memory
        )
        self._lock = threading.Lock()

    def tokens(self, b: int = 0) -> list[int]:
        """All tokens of a sequence so far, prompts included."""
        root = self.native.roots[b]
        return [*map(int, self.native.text(b)), *([root] if root >= 0 else [])]

    def reset(self) -> None:
        """Forgets all text."""
        with self.exclusive():
            for b in range(self.batch):
                self.native.truncate(b, 0)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Holds the session; RuntimeError if a generation, stream or thread holds it already."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "session: needs to be free, but another generation (or a stream that has not been "
                "read to its end or closed) is using it"
            )
        try:
            yield
        finally:
            self._lock.release()

    def fit(self, b: int, prompt: EncodedPrompt) -> tuple[int, tuple[int, ...]]:
        """How a prompt enters sequence b: (tokens of its text that stay, tokens to be fed).

        A whole conversation keeps the longest common prefix with what the cache holds. Anything
        else is appended, after the token that has not been fed yet.

        Raises ValueError if the text does not fit into the cache.
        """
        length, root = self.native.lengths[b], self.native.roots[b]
        tokens = prompt.tokens
        if prompt.whole:
            self.check_room(0, len(tokens))
            # The last token is fed in any case: it decides what follows.
            kept = common_prefix(self.native.text(b), tokens[:-1])
            return kept, tokens[kept:]
        unfed = (root, *tokens) if root >= 0 else tokens
        if not unfed:
            raise ValueError("prompt: needs at least one token in a new session, got none")
        self.check_room(length, len(unfed))
        return length, unfed

    def check_room(self, length: int, num_tokens: int) -> None:
        """ValueError unless so many tokens of a prompt fit after `length` others."""
        if length + num_tokens > self.max_length:
            raise ValueError(
                f"prompt: needs to fit into the cache's max_length of {self.max_length} tokens, "
                f"got {num_tokens} tokens after {length}"
            )


def common_prefix(cached: Sequence[int] | npt.NDArray[np.int32], tokens: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    length = min(len(cached), len(tokens))
    differs = np.asarray(cached[:length]) != np.asarray(tokens[:length])
    return int(differs.argmax()) if differs.any() else length
