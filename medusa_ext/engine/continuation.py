"""One sequence's continuation as it grows: tokens, text, stop conditions, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..text.detokenizer import Detokenizer
from ..text.stopping import FinishReason, StopStrings, StopTokens
from .results import Result, Stats, TokenLogprob

if TYPE_CHECKING:
    from .. import _C


class Continuation:
    """The new tokens of one sequence, until a stop condition holds.

    `position` is the last token's position in the sequence; `hidden` holds, where they are kept,
    the final-norm outputs [H] that decided the tokens. Text is made as tokens arrive where
    something waits for it (stop strings, a stream), and at the end otherwise: the same text.
    """

    def __init__(
        self,
        stop_tokens: StopTokens,
        stop_strings: Sequence[str],
        detokenizer: Detokenizer,
        *,
        incremental: bool,
        num_logprobs: int = 0,
        keep_hidden: bool = False,
    ) -> None:
        self.tokens: list[int] = []
        self.position = -1
        self.hidden: list[npt.NDArray[np.float32]] = []
        self.finish_reason: FinishReason | None = None
        self.stats = Stats()
        self._stop_tokens = stop_tokens
        self._stop_strings = StopStrings(stop_strings)
        self._detokenizer = detokenizer
        self._incremental = incremental or bool(stop_strings)
        self._pieces: list[str] = []
        self._taken_pieces = 0
        self._num_logprobs = num_logprobs
        self._keep_hidden = keep_hidden
        self._logprobs: list[TokenLogprob] = []

    def start(self, session: _C.Session, b: int, token: int) -> None:
        """Takes the token that the end of the prompt decided, in the step that fed it."""
        self.position = session.lengths[b] - 1
        if self._num_logprobs:
            self._add_logprobs(session.path_logits(b)[-1:], [token])
        if self._keep_hidden:
            self.hidden.append(session.path_hidden(b)[-1])
        self._take(token)

    def take_step(self, session: _C.Session, b: int, emitted: Sequence[int], drafted: bool) -> None:
        """Takes a step's tokens up to the one that ends the continuation, if one does."""
        before = len(self.tokens)
        for token in emitted:
            self._take(token)
            if self.finish_reason is not None:
                break
        kept = len(self.tokens) - before
        self.stats.count_step(kept, not drafted)
        if self._num_logprobs:
            self._add_logprobs(session.path_logits(b)[:kept], emitted[:kept])
        if self._keep_hidden:
            self.hidden.extend(session.path_hidden(b)[:kept])

    def end(self, reason: FinishReason) -> None:
        """Ends with what is there, unless it has ended: for a reason that is not in the tokens."""
        if self.finish_reason is None:
            self.finish_reason = reason
            if self._incremental:
                self._flush()

    def take_text(self) -> str:
        """The text settled since the last call (of an incremental continuation)."""
        text = "".join(self._pieces[self._taken_pieces :])
        self._taken_pieces = len(self._pieces)
        return text

    def result(self, seed: int | None) -> Result:
        """The finished continuation."""
        if self.finish_reason is None:
            raise RuntimeError("continuation: needs to have ended, got one that goes on")
        if not self._incremental:
            for token in self.tokens[:-1]:
                self._add_text(token)
            if self.tokens and self.finish_reason not in ("eos", "stop"):
                self._add_text(self.tokens[-1])
            self._flush()
            self._incremental = True
        logprobs = self._logprobs if self._num_logprobs else None
        text = "".join(self._pieces)
        return Result(text, self.tokens, self.finish_reason, seed, self.stats, logprobs)

    def _take(self, token: int) -> None:
        self.tokens.append(token)
        self.position += 1
        reason = self._stop_tokens.on_token(token)
        if reason is None:
            if self._incremental:
                self._add_text(token)
                if self._stop_strings.found:
                    self.finish_reason = "stop"
                    return
            reason = self._stop_tokens.on_count(len(self.tokens), self.position)
        if reason is not None:
            self.finish_reason = reason
            if self._incremental:
                self._flush()

    def _add_text(self, token: int) -> None:
        piece = self._detokenizer.add(token)
        if piece:
            self._pieces.append(self._stop_strings.add(piece))

    def _flush(self) -> None:
        """Releases what was held back. An unfinished character may complete no stop string."""
        self._pieces.append(self._stop_strings.add(self._detokenizer.flush()))
        self._pieces.append(self._stop_strings.flush())

    def _add_logprobs(self, logits: npt.NDArray[np.float32], tokens: Sequence[int]) -> None:
        """logits [n, V] decided tokens [n]; ties among the best go to the lower id."""
        for row, token in zip(logits, tokens, strict=True):
            scores = row.astype(np.float64)
            scores -= scores.max()
            scores -= np.log(np.exp(scores).sum())
            best = np.argsort(-scores, kind="stable")[: self._num_logprobs]
            top = [(int(i), float(scores[i])) for i in best]
            self._logprobs.append(TokenLogprob(token, float(scores[token]), top))
