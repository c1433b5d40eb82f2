"""The decoding loop: one native call for each row of the table in docs/structure.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from .results import Clock
from .step import run_step

if TYPE_CHECKING:
    from .. import _C
    from ..drafting.drafter import Drafter
    from .continuation import Continuation


def decode(
    session: _C.Session,
    drafter: Drafter,
    continuations: Sequence[Continuation],
    clock: Clock,
) -> Iterator[None]:
    """Decodes until every continuation has ended; yields after each step.

    continuations[b] follows sequence b of the session, whose prefill has made its first token the
    root. A sequence that stops leaves the batch, rolled back to its last token: that token is its
    root, and the rows before it are in the cache, as after plain decoding.
    """
    active: list[int] = []
    while running := [b for b, one in enumerate(continuations) if one.finish_reason is None]:
        if running != active:
            active = running
            session.set_active(active)
        propose = partial(drafter.propose, session, active)
        drafted, seconds = run_step(session, propose, clock)
        emitted = [session.emitted(b) for b in active]
        for b, tokens in zip(active, emitted, strict=True):
            continuations[b].take_step(session, b, tokens, drafted)
        for b in active:
            if continuations[b].finish_reason is not None:
                session.truncate(b, continuations[b].position, continuations[b].tokens[-1])
        # Last: whatever a drafter does, what was decoded has been taken.
        drafter.observe(emitted, seconds)
        clock.lap("host")
        yield
        clock.restart()
