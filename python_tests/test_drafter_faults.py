"""Drafts that run past the end of an answer, drafters that fail, and costs that threads share."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from models import tiny

from medusa_ext import generate, stream
from medusa_ext.drafting.auto import AutoDrafter
from medusa_ext.drafting.costs import CostCurve, LiveCosts

PROMPT = "to be or not to be, that is"
FREE = CostCurve([1, 64], [1e-3, 1.0001e-3])


class Planted(AutoDrafter):
    """The automatic drafter, whose lookup finds the true continuation or a part of it."""

    def __init__(self, truths: Sequence[Sequence[int]], rng: Random) -> None:
        super().__init__(LiveCosts(FREE), 32)
        self._truths = truths
        self._rng = rng
        self._prompts: list[int] = []

    def _look_up(self, session: Any, active: Sequence[int], num_nodes: int) -> list[list[int]]:
        if not self._prompts:
            self._prompts = list(session.lengths)
        found = []
        for b in active:
            begin = session.lengths[b] + 1 - self._prompts[b]
            guesses = list(self._truths[b][begin : begin + max(num_nodes, 1)])
            if guesses and self._rng.random() < 0.3:
                guesses[self._rng.randrange(len(guesses))] ^= 1
            if num_nodes:
                node, kept = 0, 0
                for token in guesses:
                    node = session.add_node(b, node, token)
                    if node < 0:
                        break
                    kept += 1
                guesses = guesses[:kept]
            found.append(guesses)
        return found


@pytest.mark.parametrize("batch", [1, 3])
def test_drafts_past_the_end(batch: int) -> None:
    """Ends, cuts by length and stop strings at every depth of a draft that is right."""
    model = tiny()
    prompts = [PROMPT, "aaaa aaaa", "once"][:batch]
    truths = [one.tokens for one in generate(model, prompts, 60, tree=None, ignore_eos=True)]
    for depth in range(40):
        ended = replace(model, eos_ids=frozenset([truths[0][depth]]))
        for limit in (60, depth + 1):
            plain = generate(ended, prompts, limit, tree=None)
            out = generate(ended, prompts, limit, draft=Planted(truths, Random(depth)))
            assert [one.tokens for one in out] == [one.tokens for one in plain]
            assert [one.finish_reason for one in out] == [one.finish_reason for one in plain]
        stop = model.text_decoder.decode(truths[0][depth : depth + 2]) or "\0"
        plain = generate(model, prompts, 60, tree=None, stop=stop, ignore_eos=True)
        planted = Planted(truths, Random(depth))
        out = generate(model, prompts, 60, draft=planted, stop=stop, ignore_eos=True)
        assert [one.text for one in out] == [one.text for one in plain]


def test_observing_any_step() -> None:
    """A step may emit fewer tokens than were guessed right: 20,000 random ones."""
    rng = Random(0)
    drafter = Planted([], rng)
    for _ in range(20_000):
        guesses = [rng.choices(range(3), k=rng.randrange(1, 9)) for _ in range(rng.randrange(1, 4))]
        right = [rng.randrange(len(one) + 1) for one in guesses]
        emitted = [[*one[:n], 7] for one, n in zip(guesses, right, strict=True)]
        emitted = [one[: rng.randrange(1, len(one) + 1)] for one in emitted]
        drafter._guesses, drafter._rows = guesses, 9
        drafter.observe(emitted, 1e-3)
        assert 0.0 <= drafter._lookup_rate.value <= 1.0
    # Guesses that are always right, and a step that ends inside them.
    for _ in range(400):
        drafter._guesses = [[5, 6, 8]]
        drafter.observe([[5, 6]], 1e-3)
    assert drafter._lookup_rate.value > 0.99


class Failing:
    """Drafts nothing, and fails in the call named at the step of that number."""

    name = "failing"
    max_nodes = 4

    def __init__(self, call: str, step: int) -> None:
        self._call, self._left = call, step

    def _count(self, call: str) -> None:
        if call == self._call:
            self._left -= 1
            if self._left < 0:
                raise ArithmeticError("no drafts today")

    def propose(self, session: Any, active: Sequence[int]) -> bool:
        self._count("propose")
        return False

    def observe(self, emitted: Sequence[Sequence[int]], seconds: float) -> None:
        self._count("observe")


@pytest.mark.parametrize("call", ["propose", "observe"])
@pytest.mark.parametrize("step", [0, 5])
def test_a_failing_drafter_loses_no_text(call: str, step: int) -> None:
    model = tiny()
    plain = generate(model, PROMPT, 30, tree=None, ignore_eos=True)
    # The prefill decides a token, each step one more; `observe` comes after its step.
    decoded = plain.tokens[: 1 + step + (call == "observe")]
    session = model.session()
    with pytest.raises(ArithmeticError, match="no drafts today") as caught:
        generate(session, PROMPT, 30, draft=Failing(call, step), ignore_eos=True)
    (result,) = caught.value.results  # type: ignore[attr-defined]
    assert result.tokens == decoded
    assert result.finish_reason == "error"
    assert result.text == model.text_decoder.decode(decoded)
    assert session.tokens()[-len(decoded) :] == decoded
    rest = generate(session, None, 30 - len(decoded), tree=None, ignore_eos=True)
    assert [*decoded, *rest.tokens] == plain.tokens

    pieces: list[str] = []
    with pytest.raises(ArithmeticError):
        # A stop string that never comes: text is held back for it.
        failing = Failing(call, step)
        for piece in stream(model, PROMPT, 30, draft=failing, ignore_eos=True, stop="\0\0"):
            pieces.append(piece)
    assert "".join(pieces) == model.text_decoder.decode(decoded)


def test_threads_share_costs() -> None:
    costs = LiveCosts(FREE)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = Random(seed)
        try:
            for _ in range(3000):
                rows, batch = rng.randrange(1, 200), rng.randrange(1, 20)
                costs.observe(rows, 1e-3, batch)
                costs.observe_heads(batch, 1e-4)
                assert costs.step(rng.randrange(1, 200), batch) > 0
                assert costs.heads(batch) >= 0
        except BaseException as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
