"""Keeps the slots of a decoder of fixed slots filled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

from .answer import Answer, Emission, Int32Array, Job, begun
from .shards import Conversation


class SlotBackend(ABC):
    """A backend (see backend.Backend) over `batch` slots that are filled and stepped one by one."""

    def __init__(self, batch: int, max_length: int, hidden_size: int) -> None:
        self.batch = batch
        self.max_length = max_length
        self.hidden_size = hidden_size
        self.temperature = 0.0

    @abstractmethod
    def start(
        self, slots: Sequence[int], prompts: Sequence[Int32Array], seeds: Sequence[int]
    ) -> list[Emission]:
        """Puts new prompts into `slots`; the first token of each answer."""

    @abstractmethod
    def step(self, slots: Sequence[int]) -> list[Emission]:
        """The next token of each of `slots`."""

    def answer(
        self,
        jobs: Iterable[Job],
        end_ids: frozenset[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        progress: Callable[[int], None] = lambda tokens: None,
    ) -> Iterator[tuple[int, Conversation]]:
        """See backend.Backend."""
        self.temperature = temperature
        waiting = begun(jobs, end_ids, max_new_tokens, self.max_length)
        answers: dict[int, Answer] = {}
        free = list(range(self.batch))
        more = True
        while more or answers:
            # Refilling several slots at once makes wider, better used products.
            if more and (not answers or len(free) >= max(1, self.batch // 8)):
                more = self._refill(waiting, answers, free)
            for slot in sorted(answers):
                if answers[slot].is_finished:
                    answer = answers.pop(slot)
                    yield answer.job.index, answer.conversation()
                    free.append(slot)
            slots = sorted(answers)
            if slots:
                for slot, emission in zip(slots, self.step(slots), strict=True):
                    answers[slot].push(emission)
                progress(len(slots))

    def _refill(
        self, waiting: Iterator[Answer], answers: dict[int, Answer], free: list[int]
    ) -> bool:
        """Starts waiting answers in the free slots; False once none is waiting."""
        free.sort(reverse=True)
        started: dict[int, Answer] = {}
        while free and (answer := next(waiting, None)):
            started[free.pop()] = answer
        if started:
            emissions = self.start(
                list(started),
                [answer.job.prompt for answer in started.values()],
                [answer.job.seed for answer in started.values()],
            )
            for answer, emission in zip(started.values(), emissions, strict=True):
                answer.push(emission)
        answers |= started
        return not free
