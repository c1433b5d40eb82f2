"""Answers by the engine: prompts enter beside the answers that grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ...engine.engine import Engine
from ...engine.model import Model
from ...engine.request import Request
from .answer import Answer, Emission, Job, begun
from .shards import Conversation

# Nobody reads an answer as it grows: prompts may make a step as long as they like.
_SLOWDOWN: Final = 1e9


class EngineBackend:
    """See backend.Backend."""

    def __init__(self, model: Model, batch: int, max_length: int) -> None:
        """Raises MemoryError naming the size if the cache does not fit."""
        self.batch = batch
        self.max_length = max_length
        self.hidden_size = model.config.hidden_size
        self._engine = Engine(
            model, batch, max_length=max_length, max_nodes=1, max_slowdown=_SLOWDOWN
        )

    def answer(
        self,
        jobs: Iterable[Job],
        end_ids: frozenset[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        progress: Callable[[int], None] = lambda tokens: None,
    ) -> Iterator[tuple[int, Conversation]]:
        """See backend.Backend."""
        waiting = begun(jobs, end_ids, max_new_tokens, self.max_length)
        answers: dict[Request, Answer] = {}
        more = True
        try:
            while more or answers:
                while more and len(answers) < self.batch:
                    answer = next(waiting, None)
                    more = answer is not None
                    if answer is not None:
                        answers[self._add(answer, temperature)] = answer
                progress(self._step(answers))
                for request in [r for r, answer in answers.items() if answer.is_finished]:
                    self._engine.cancel(request)
                    finished = answers.pop(request)
                    yield finished.job.index, finished.conversation()
        finally:
            for request in answers:
                self._engine.cancel(request)

    def _add(self, answer: Answer, temperature: float) -> Request:
        return self._engine.add(
            answer.job.prompt,
            answer.max_tokens,
            temperature=temperature,
            seed=answer.job.seed,
            tree=None,
            ignore_eos=True,
            keep_hidden=True,
        )

    def _step(self, answers: dict[Request, Answer]) -> int:
        """One step; the tokens that it brought."""
        before = sum(len(answer.emissions) for answer in answers.values())
        for request in self._engine.step():
            if request not in answers:
                continue  # cancelled
            answer = answers[request]
            new = slice(len(answer.emissions), None)
            for token, hidden in zip(request.tokens[new], request.hidden[new], strict=True):
                if not answer.is_finished:
                    answer.push(Emission(token, hidden))
        return sum(len(answer.emissions) for answer in answers.values()) - before
