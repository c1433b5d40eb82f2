"""The protocol of drafters: what proposes a step's draft tokens, as nodes of its trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .. import _C


class Drafter(Protocol):
    """Adds draft nodes below the roots of a step's trees.

    `propose` is called once a step, after the trees of the `active` sequences have become their
    roots, and says whether any draft was added. `observe` tells what the step emitted for each of
    them, in order, and the seconds that the step took. `max_nodes` bounds a tree's
    nodes, the root included. `name` is what statistics report.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_nodes(self) -> int: ...
    def propose(self, session: _C.Session, active: Sequence[int]) -> bool: ...
    def observe(self, emitted: Sequence[Sequence[int]], seconds: float) -> None: ...
