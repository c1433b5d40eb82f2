"""The decoding loop's body: one step of all who decode, with prompts entering beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .results import Clock
from .step import run_step

if TYPE_CHECKING:
    from .. import _C
    from .request import Request


@dataclass(frozen=True)
class Chunk:
    """Tokens of a request's prompt that a step feeds; `is_last`: the first new token follows."""

    request: Request
    tokens: tuple[int, ...]
    is_last: bool


def step_all(
    session: _C.Session, decoding: Sequence[Request], chunks: Sequence[Chunk], clock: Clock
) -> float:
    """One step: requests that decode grow, and chunks of others' prompts are fed.

    What a drafter raises ends its own requests, with what they had; so do logits that are not
    finite. Returns the step's seconds.
    """
    groups = _by_drafter(decoding)
    drafted: set[int] = set()

    def propose() -> bool:
        for chunk in chunks:
            tokens = np.asarray(chunk.tokens, dtype=np.int32)
            session.feed(chunk.request.sequence, tokens, chunk.is_last)
        for group in groups:
            sequences = [request.sequence for request in group]
            session.draft_for(sequences)
            try:
                if group[0].drafter.propose(session, sequences):
                    drafted.update(sequences)
            except Exception as error:
                for request in group:
                    _drop_drafts(session, request.sequence)
                    request.fail(error)
        return bool(drafted)

    session.set_active(sorted(r.sequence for r in (*decoding, *(c.request for c in chunks))))
    _, seconds = run_step(session, propose, clock, check=False)
    for request in decoding:
        if request.finish_reason is None:
            b = request.sequence
            request.continuation.take_step(session, b, session.emitted(b), b in drafted)
    for chunk in chunks:
        _take_chunk(session, chunk)
    # Last: the search for the place loses the step's rows.
    for request in (*decoding, *(chunk.request for chunk in chunks)):
        if request.finish_reason is None and (text := session.failure(request.sequence)):
            request.fail(RuntimeError(text))
    for group in groups:
        _observe(session, group, seconds)
    return seconds


def _by_drafter(requests: Sequence[Request]) -> list[list[Request]]:
    """The requests that share a drafter, sequences rising."""
    groups: dict[int, list[Request]] = {}
    for request in sorted(requests, key=lambda request: request.sequence):
        groups.setdefault(id(request.drafter), []).append(request)
    return list(groups.values())


def _drop_drafts(session: _C.Session, b: int) -> None:
    root = session.roots[b]
    session.set_tree(b, np.array([root], np.int32), np.array([-1], np.int32))


def _take_chunk(session: _C.Session, chunk: Chunk) -> None:
    request = chunk.request
    request.unfed = request.unfed[len(chunk.tokens) :]
    emitted = session.emitted(request.sequence)
    if chunk.is_last and emitted:
        request.continuation.start(session, request.sequence, emitted[0])


def _observe(session: _C.Session, group: Sequence[Request], seconds: float) -> None:
    """Tells the group's drafter what came; whatever it does, what was decoded has been taken."""
    if any(request.error is not None for request in group):
        return
    try:
        emitted = [session.emitted(request.sequence) for request in group]
        group[0].drafter.observe(emitted, seconds)
    except Exception as error:
        for request in group:
            request.fail(error)
