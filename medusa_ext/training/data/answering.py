"""Keeps a backend's slots filled: prompts in, finished answers with their hidden states out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .backend import Backend, Emission, Int32Array
from .loops import LOOP_NGRAM, LoopFinder
from .shards import Conversation, to_float16


@dataclass(frozen=True)
class Job:
    """A prompt to answer; `seed` fixes what is drawn for it."""

    index: int
    prompt: Int32Array
    seed: int


@dataclass
class _Running:
    """An answer on its way."""

    job: Job
    emissions: list[Emission] = field(default_factory=list)
    loops: LoopFinder = field(default_factory=LoopFinder)
    cut: int | None = None

    def push(self, emission: Emission) -> None:
        """Takes a token; a loop that it closes is cut off from its first repeated n-gram on."""
        self.emissions.append(emission)
        if self.loops.push(emission.token):
            self.cut = len(self.emissions) - LOOP_NGRAM

    def finished(self) -> Conversation:
        """The answer up to where a loop began."""
        kept = self.emissions[: self.cut]
        tokens = np.array([e.token for e in kept], dtype=np.int32)
        width = self.emissions[0].hidden.shape[0]
        rows = np.stack([e.hidden for e in kept]) if kept else np.zeros((0, width), np.float32)
        return Conversation(self.job.prompt, tokens, to_float16(rows))


def answer_all(
    backend: Backend,
    jobs: Iterable[Job],
    end_ids: frozenset[int],
    max_new_tokens: int,
    progress: Callable[[int], None] = lambda tokens: None,
) -> Iterator[tuple[int, Conversation]]:
    """Yields (job's index, conversation) as answers end: at an end token, at the first repeated
    12-gram, at max_new_tokens or at the end of the cache. Prompts that fill the cache are left out.

    `progress` is told the tokens of each step.
    """
    waiting = iter(jobs)
    running: dict[int, _Running] = {}
    free = list(range(backend.batch))
    more = True
    while more or running:
        # Refilling several slots at once makes wider, better used products.
        if more and (not running or len(free) >= max(1, backend.batch // 8)):
            more = _refill(backend, waiting, running, free)
        slots = sorted(slot for slot, one in running.items() if one.emissions)
        for slot in slots:
            one = running[slot]
            last = one.emissions[-1].token
            used = len(one.job.prompt) + len(one.emissions)
            over = len(one.emissions) >= max_new_tokens or used >= backend.max_length
            if last in end_ids or over or one.cut is not None:
                yield one.job.index, one.finished()
                del running[slot]
                free.append(slot)
        slots = sorted(running)
        if slots:
            for slot, emission in zip(slots, backend.step(slots), strict=True):
                running[slot].push(emission)
            progress(len(slots))


def _refill(
    backend: Backend, waiting: Iterator[Job], running: dict[int, _Running], free: list[int]
) -> bool:
    """Starts waiting jobs in the free slots; False once none is waiting."""
    free.sort(reverse=True)
    started: list[tuple[int, Job]] = []
    more = True
    while free and more:
        job = next(waiting, None)
        if job is None:
            more = False
        elif len(job.prompt) + 1 < backend.max_length:
            started.append((free.pop(), job))
    if started:
        emissions = backend.start(
            [slot for slot, _ in started],
            [job.prompt for _, job in started],
            [job.seed for _, job in started],
        )
        for (slot, job), emission in zip(started, emissions, strict=True):
            running[slot] = _Running(job)
            running[slot].push(emission)
    return more
