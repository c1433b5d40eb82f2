"""One step of a native session: its phases in order, written once for all who decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .results import Clock

if TYPE_CHECKING:
    from .. import _C


def nothing() -> bool:
    """Drafts nothing: a plain step."""
    return False


def run_step(
    session: _C.Session,
    propose: Callable[[], bool] = nothing,
    clock: Clock | None = None,
    *,
    check: bool = True,
) -> tuple[bool, float]:
    """Drafts, verifies, accepts and compacts for the active sequences.

    `propose` adds draft nodes and says whether it did; `clock` books the phases' seconds. Returns
    (whether anything was drafted, seconds of the step). What it emitted is in `session.emitted`.

    Raises RuntimeError where no token followed since logits are not finite; without `check` the
    caller asks `session.failure`.
    """
    clock = clock or Clock()
    session.begin_step()
    drafted = propose()
    seconds = clock.lap("propose")
    session.verify()
    seconds += clock.lap("verify")
    session.accept()
    seconds += clock.lap("accept")
    session.compact()
    # A device works on after its host: this is where it is waited for.
    seconds += clock.lap("compact")
    if check:
        session.check_finite()
    return drafted, seconds
