"""Drafts chosen by what they cost here and how often they are right: `tree="auto"`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

from .fixed import MAX_NGRAM, MIN_NGRAM_ALONE, MIN_NGRAM_COMBINED

if TYPE_CHECKING:
    from .. import _C
    from .costs import LiveCosts
    from .trees import NestedTrees

_SIZES: Final = (1, 2, 3, 4, 5, 6, 8, 11, 15, 20, 31, 47, 63)
_REPLAN: Final = 16  # steps between two plans
_RETRY: Final = 64  # heads that do not pay are tried again every so many steps
_PROBE: Final = 48  # a plain step every so many steps tells what drafts are up against
_FIRST_PROBES: Final = (3, 8)
_MARGIN: Final = 1.03  # drafts must promise this much over plain decoding


class Rate:
    """Successes per trial, recent ones counting more, starting from a prior."""

    def __init__(self, prior: float, weight: float, memory: float = 64.0) -> None:
        """The prior counts like `weight` trials; after `memory` trials it is mostly forgotten."""
        self._successes = prior * weight
        self._trials = weight
        self._decay = 1.0 - 1.0 / memory

    @property
    def value(self) -> float:
        """The present estimate."""
        return self._successes / self._trials

    def observe(self, successes: float, trials: float) -> None:
        """Takes in `successes` of `trials`."""
        self._successes = self._decay * self._successes + successes
        self._trials = self._decay * self._trials + trials


@dataclass(frozen=True)
class DraftPlan:
    """Draft nodes of a step: lookup's and the heads' where lookup matches, the heads' elsewhere."""

    lookup: int = 0
    heads_beside: int = 0
    heads: int = 0


def best_plan(
    costs: LiveCosts,
    batch: int,
    max_nodes: int,
    lookup_rate: float | None,
    heads_gain: Sequence[float] | None,
) -> DraftPlan:
    """The plan of most expected tokens per second.

    lookup_rate: probability that a looked-up token is right, given that those before it were;
    None: no lookup. heads_gain[n]: tokens that the heads' best n nodes add; None: no heads. Where
    lookup is right, the heads add nothing.
    """
    sizes = [0, *(size for size in _SIZES if size < max_nodes)]
    seconds = [costs.step(batch * (1 + nodes), batch) for nodes in range(max_nodes)]
    heads_seconds = costs.heads(batch)
    plain = _MARGIN / seconds[0]
    heads, heads_speed = 0, plain
    gains = [0.0] * max_nodes if heads_gain is None else heads_gain
    heads_sizes = sizes if heads_gain is not None else [0]
    for size in heads_sizes[1:]:
        speed = (1.0 + gains[size]) / (seconds[size] + heads_seconds)
        if speed > heads_speed:
            heads, heads_speed = size, speed
    if lookup_rate is None:
        return DraftPlan(heads=heads)
    lookup, beside, speed_found = 0, heads, heads_speed
    for chain in sizes[1:]:
        gained = 1.0 + sum(lookup_rate**depth for depth in range(1, chain + 1))
        for size in heads_sizes:
            if chain + size >= max_nodes:
                break
            speed = (gained + (1.0 - lookup_rate) * gains[size]) / (
                seconds[chain + size] + (heads_seconds if size else 0.0)
            )
            if speed > speed_found:
                lookup, beside, speed_found = chain, size, speed
    return DraftPlan(lookup, beside if lookup else 0, heads)


class AutoDrafter:
    """The fastest drafts by measured cost and observed acceptance: lookup, heads, both or none.

    While lookup does not pay, its first guess is still compared with what is emitted, at no cost;
    heads that do not pay are tried again now and then. So either comes back when it would help.
    While drafts do pay, a plain step now and then makes sure of it.
    """

    def __init__(
        self,
        costs: LiveCosts,
        max_nodes: int,
        *,
        use_lookup: bool = True,
        heads: _C.Heads | None = None,
        trees: NestedTrees | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """`max_nodes` bounds a tree; `trees` are the best trees of `heads`, given with them;
        `clock` times the heads."""
        self.name = "both" if heads and use_lookup else "heads" if heads else "lookup"
        self.max_nodes = max_nodes
        self._costs = costs
        self._clock = clock
        self._use_lookup = use_lookup
        self._min_ngram = MIN_NGRAM_ALONE if heads is None else MIN_NGRAM_COMBINED
        self._heads = heads
        self._trees = trees
        self._native: dict[int, _C.TokenTree] = {}
        self._expected = [0.0] * max_nodes
        if trees is not None:
            self._expected = [trees.expected_tokens(1 + n) - 1.0 for n in range(max_nodes)]
        self._lookup_rate = Rate(prior=0.6, weight=4.0)
        self._heads_rate = Rate(prior=1.0, weight=4.0)
        self._plan = DraftPlan()
        self._planned_at = (-_REPLAN, 0)  # step and batch
        self._steps = 0
        # Of the step under way, for `observe`.
        self._guesses: list[list[int]] = []
        self._heads_nodes = 0
        self._heads_seconds = 0.0
        self._rows = 0

    def propose(self, session: _C.Session, active: Sequence[int]) -> bool:
        """Adds what the present plan says."""
        plan = self._current_plan(len(active))
        self._steps += 1
        if self._is_probe(len(active)):
            plan = DraftPlan()
            self._planned_at = (self._steps - _REPLAN, len(active))
        self._guesses = self._look_up(session, active, plan.lookup)
        matched = sum(1 for guesses in self._guesses if guesses) if plan.lookup else 0
        nodes = plan.heads_beside if 2 * matched > len(active) else plan.heads
        if self._heads is not None and not nodes and not matched and self._steps % _RETRY == 0:
            nodes = 1
        if nodes and self._heads is not None:
            start = self._clock()
            session.draft_heads(self._heads, self._tree(nodes))
            self._heads_seconds = self._clock() - start
            self._costs.observe_heads(len(active), self._heads_seconds)
        self._heads_nodes = nodes
        self._rows = len(active) * (1 + nodes)
        if plan.lookup:
            self._rows += sum(len(guesses) for guesses in self._guesses)
        return matched > 0 or nodes > 0

    def observe(self, emitted: Sequence[Sequence[int]], seconds: float) -> None:
        """Learns from what the step emitted and from the time it took."""
        if self._heads_nodes:
            seconds = max(seconds - self._heads_seconds, 0.0)
        self._costs.observe(self._rows, seconds, len(emitted))
        for guesses, tokens in zip(self._guesses, emitted, strict=True):
            if guesses:
                # A step that ends early emits fewer tokens than were guessed: what was not
                # emitted says nothing.
                compared = min(len(guesses), len(tokens))
                hits = 0
                while hits < compared and guesses[hits] == tokens[hits]:
                    hits += 1
                self._lookup_rate.observe(hits, hits + (hits < compared))
            elif self._heads_nodes:
                self._heads_rate.observe(len(tokens) - 1, self._expected[self._heads_nodes])

    def _current_plan(self, batch: int) -> DraftPlan:
        step, planned_batch = self._planned_at
        if self._steps - step >= _REPLAN or batch != planned_batch:
            rate = min(self._lookup_rate.value, 1.0) if self._use_lookup else None
            gains = None
            if self._heads is not None:
                gains = [self._heads_rate.value * gain for gain in self._expected]
            self._plan = best_plan(self._costs, batch, self.max_nodes, rate, gains)
            self._planned_at = (self._steps, batch)
        return self._plan

    def _is_probe(self, batch: int) -> bool:
        """Whether this step is to be plain for the sake of its time."""
        if self._steps % _PROBE == 0:
            return True
        return self._steps in _FIRST_PROBES and not self._costs.has_seen(batch, batch)

    def _look_up(
        self, session: _C.Session, active: Sequence[int], num_nodes: int
    ) -> list[list[int]]:
        """Adds lookup's nodes and returns them for each sequence; with num_nodes = 0 only says
        what the first one would have been."""
        if not self._use_lookup:
            return [[] for _ in active]
        if num_nodes == 0:
            return [session.look_up(b, 1, MAX_NGRAM, self._min_ngram) for b in active]
        session.draft_lookup(num_nodes, MAX_NGRAM, self._min_ngram, 1)
        return [session.tree(b)[0][1:].tolist() for b in active]

    def _tree(self, num_drafted: int) -> _C.TokenTree:
        if num_drafted not in self._native and self._trees is not None:
            self._native[num_drafted] = self._trees.tree(1 + num_drafted).native
        return self._native[num_drafted]
