"""What distill asks of a decoder: prompts in, answers with their hidden states out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from .answer import Job
from .shards import Conversation


class Backend(Protocol):
    """Answers prompts, up to `batch` at a time, prompt and answer of `max_length` tokens at most.

    An answer depends on its prompt and its seed alone, so that a run that was killed finds the
    same answers again whatever shared the batch with them.
    """

    batch: int
    max_length: int
    hidden_size: int

    def answer(
        self,
        jobs: Iterable[Job],
        end_ids: frozenset[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        progress: Callable[[int], None] = lambda tokens: None,
    ) -> Iterator[tuple[int, Conversation]]:
        """Yields (job's index, conversation) as answers end: at an end token, at the first repeated
        12-gram, at max_new_tokens or at max_length. Prompts that fill max_length are left out.

        `temperature` 0 is greedy. `progress` is told the tokens of each step.
        """
