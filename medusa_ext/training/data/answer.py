"""An answer on its way, and when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import LOOP_NGRAM, LoopFinder
from .shards import Conversation, to_float16

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """A prompt to answer; `seed` fixes what is drawn for it."""

    index: int
    prompt: Int32Array
    seed: int


class Emission(NamedTuple):
    """A decided token and the final-norm output [H] that decided it."""

    token: int
    hidden: Float32Array


@dataclass
class Answer:
    """A job's answer so far."""

    job: Job
    end_ids: frozenset[int]
    max_tokens: int
    emissions: list[Emission] = field(default_factory=list)
    is_finished: bool = False
    _loops: LoopFinder = field(default_factory=LoopFinder)
    _cut: int | None = None

    def push(self, emission: Emission) -> None:
        """Takes a token. The answer ends with an end token or max_tokens, and before a loop: what
        follows its first repeated n-gram, that included, is cut off."""
        self.emissions.append(emission)
        if self._loops.push(emission.token):
            self._cut = len(self.emissions) - LOOP_NGRAM
        self.is_finished = (
            self._cut is not None
            or emission.token in self.end_ids
            or len(self.emissions) >= self.max_tokens
        )

    def conversation(self) -> Conversation:
        """Prompt, answer and hidden states."""
        kept = self.emissions[: self._cut]
        tokens = np.array([emission.token for emission in kept], dtype=np.int32)
        width = self.emissions[0].hidden.shape[0]
        rows = [emission.hidden for emission in kept]
        hidden = np.stack(rows) if rows else np.zeros((0, width), np.float32)
        return Conversation(self.job.prompt, tokens, to_float16(hidden))


def begun(
    jobs: Iterable[Job], end_ids: frozenset[int], max_new_tokens: int, max_length: int
) -> Iterator[Answer]:
    """An empty answer to each job whose prompt leaves room in `max_length` tokens for one."""
    for job in jobs:
        room = max_length - len(job.prompt)
        if room > 1:
            yield Answer(job, end_ids, min(max_new_tokens, room))
