"""Requests that join, leave, fail and are cancelled beside each other, as if each were alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from models import TINY_VOCAB, PlantedDrafter, tiny, tiny_with_heads

from medusa_ext import _C, Engine, Model, Request, Result, generate
from medusa_ext.engine.row_budget import MOST_ROWS, RowBudget

PROMPT = "to be or not to be, that is"
LENGTH = 160
SLOTS = 4


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = _C.num_threads()
    _C.set_num_threads(count)
    try:
        yield
    finally:
        _C.set_num_threads(before)


class Failing(PlantedDrafter):
    """Drafts like the planted one until it raises."""

    def __init__(self, truth: Sequence[int], seed: int, call: str, step: int) -> None:
        super().__init__(dict.fromkeys(range(SLOTS), truth), TINY_VOCAB, 6, seed)  # type: ignore[arg-type]
        self._call, self._left = call, step

    def propose(self, session: Any, active: Sequence[int]) -> bool:
        drafted = super().propose(session, active)
        self._count("propose")
        return drafted

    def observe(self, emitted: Sequence[Sequence[int]], seconds: float) -> None:
        self._count("observe")

    def _count(self, call: str) -> None:
        self._left -= call == self._call
        if self._left < 0:
            raise ArithmeticError("no drafts today")


def random_options(rng: Random) -> dict[str, Any]:
    """Options of one request, those that name its drafts left out."""
    options: dict[str, Any] = {
        "max_new_tokens": rng.choice((1, 2, 7, 20, 60)),
        "ignore_eos": rng.random() < 0.7,
        "logprobs": rng.choice((0, 0, 2)),
    }
    if rng.random() < 0.3:
        options["stop"] = rng.choice(("a", "\n", "<user>", "zz"))
    if rng.random() < 0.5:
        options |= {
            "temperature": rng.choice((0.3, 0.8, 1.5)),
            "top_p": rng.choice((1.0, 0.9)),
            "top_k": rng.choice((0, 5)),
            "seed": rng.randrange(1 << 40),
        }
    return options


def random_drafts(rng: Random, alone: Result, prompt: Sequence[int]) -> dict[str, Any]:
    """What drafts for a request: planted trees, lookup, nothing, or a drafter that fails."""
    kind = rng.choice(("planted", "planted", "lookup", "none", "failing"))
    truth = [*prompt, *alone.tokens]
    seed = rng.randrange(1 << 30)
    if kind == "planted":
        everywhere: Any = dict.fromkeys(range(SLOTS), truth)
        return {"draft": PlantedDrafter(everywhere, TINY_VOCAB, rng.randint(1, 9), seed)}
    if kind == "failing":
        call, step = rng.choice(("propose", "observe")), rng.randrange(6)
        return {"draft": Failing(truth, seed, call, step)}
    return {"draft": "lookup", "tree": 5} if kind == "lookup" else {"tree": None}


def check_against(request: Request, alone: Result) -> None:
    """Equal to the same request alone; or, where it was cut short, to the beginning of it."""
    got = request.result
    assert got.tokens == alone.tokens[: len(got.tokens)]
    if alone.logprobs is not None:
        assert got.logprobs == alone.logprobs[: len(got.tokens)]
    # What observes a request's last step may fail too: all of its text is there.
    assert request.error is None or isinstance(request.error, ArithmeticError)
    if got.finish_reason == "error":
        assert request.error is not None
    elif got.finish_reason != "cancelled":
        assert got == Result(
            alone.text, alone.tokens, alone.finish_reason, alone.seed, got.stats, alone.logprobs
        )


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
def test_requests_are_what_they_are_alone(dtype: str, num_threads: int) -> None:
    """Random arrivals, prompts, options, drafts, failures and cancellations."""
    model = tiny(dtype=dtype)
    rng = Random(f"requests {dtype} {num_threads}")
    reasons: set[str] = set()
    with threads(num_threads):
        for slowdown in (1.0, 2.0, math.inf):
            engine = Engine(model, SLOTS, max_length=LENGTH, max_slowdown=slowdown)
            planned = []
            shared = rng.choices(range(256), k=40)
            for _ in range(20):
                prompt = shared[: rng.randrange(40)] + rng.choices(range(256), k=rng.randint(1, 60))
                options = random_options(rng)
                options["max_new_tokens"] = min(options["max_new_tokens"], LENGTH - len(prompt))
                alone = generate(model, prompt, tree=None, **options)
                options |= random_drafts(rng, alone, prompt)
                planned.append((prompt, options, alone))
            reasons |= drive(engine, planned, rng)
    assert reasons >= {"length", "error", "cancelled"}


def drive(
    engine: Engine, planned: Sequence[tuple[list[int], dict[str, Any], Result]], rng: Random
) -> set[str]:
    """Adds requests between steps, cancels some, and compares all; why they ended."""
    requests: list[tuple[Request, Result]] = []
    ended: list[Request] = []
    while len(requests) < len(planned) or not engine.is_idle:
        while len(requests) < len(planned) and rng.random() < 0.3:
            prompt, options, alone = planned[len(requests)]
            requests.append((engine.add(prompt, **options), alone))
        for request, _ in requests:
            if request.finish_reason is None and rng.random() < 0.005:
                engine.cancel(request)
        ended += [one for one in engine.step() if one.finish_reason is not None]
    assert len(ended) == len(set(ended)) == len(planned), "each ends once"
    assert not engine.running and not engine.waiting
    for request, alone in requests:
        check_against(request, alone)
    return {request.result.finish_reason for request, _ in requests}


def test_typical_acceptance_takes_no_notice_of_neighbours() -> None:
    model = tiny()
    engine = Engine(model, SLOTS, max_length=LENGTH)
    how: dict[str, Any] = {"tree": 5, "draft": "lookup", "acceptance": "typical"}
    how |= {"temperature": 0.2, "epsilon": 0.1, "ignore_eos": True}
    prompts = ["aaaa aaaa", PROMPT, "abcabcabc", PROMPT * 2, "xyxy"]
    requests = [engine.add(prompt, 80, seed=i, **how) for i, prompt in enumerate(prompts)]
    list(engine.run())
    for i, (prompt, request) in enumerate(zip(prompts, requests, strict=True)):
        alone = generate(model, prompt, 80, seed=i, **how)
        assert request.result.tokens == alone.tokens
        assert request.result.stats.accepted == alone.stats.accepted
    assert any(request.result.stats.tokens_per_step > 1 for request in requests)


def test_prompts_share_a_forward_and_texts_stream() -> None:
    model = tiny_with_heads()
    engine = Engine(model, 3, max_length=200)
    first = engine.add(PROMPT, 60, stream=True, ignore_eos=True)
    pieces = []
    for _ in range(4):
        assert engine.step() == [first]
        pieces.append(first.take_text())
    long = engine.add("x" * 120, 5, tree=None)
    touched = engine.step()
    assert touched == [first, long]
    assert long.unfed and not long.has_started, "it enters in chunks"
    while not engine.is_idle:
        engine.step()
        pieces.append(first.take_text())
    alone = generate(model, PROMPT, 60, tree=None, ignore_eos=True)
    assert "".join(pieces) == first.result.text == alone.text
    assert long.result.tokens == generate(model, "x" * 120, 5, tree=None).tokens
    stats = long.result.stats
    assert stats.prompt_tokens == 120 and stats.steps == len(long.result.tokens) - 1
    assert stats.seconds["prefill"] > 0 and stats.tokens_per_second > 0


def test_a_beginning_that_a_sequence_holds_is_not_computed_again() -> None:
    model = tiny()
    engine = Engine(model, 2)
    list(engine.run())
    prompts = ["the same beginning, " + end for end in ("and one", "and another", "and a third")]
    requests = []
    for prompt in prompts:
        requests.append(engine.add(prompt, 8))
        assert list(engine.run()) == requests[-1:]
    shared = [request.result.stats.reused_tokens for request in requests]
    assert shared[0] == 0
    assert shared[1] == len("the same beginning, and ")
    assert shared[2] == len("the same beginning, and a")
    for prompt, request in zip(prompts, requests, strict=True):
        assert request.result.tokens == generate(model, prompt, 8).tokens


def test_waiting_requests_come_in_order_and_can_be_cancelled() -> None:
    engine = Engine(tiny(), 1)
    first, second, third = (engine.add(PROMPT, n, ignore_eos=True) for n in (3, 4, 5))
    engine.step()
    assert engine.running == (first,) and engine.waiting == (second, third)
    with pytest.raises(RuntimeError, match="needs to have ended"):
        _ = first.result
    engine.cancel(second)
    assert [one for one in engine.step() if one.finish_reason] == [second]
    assert second.result.finish_reason == "cancelled" and second.result.tokens == []
    assert list(engine.run()) == [first, third]
    engine.cancel(first)  # it has ended: nothing happens
    assert first.result.finish_reason == "length" and len(third.result.tokens) == 5


def test_a_step_that_fails_ends_what_runs_and_the_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny()
    engine = Engine(model, 2)
    running = engine.add(PROMPT, 20, ignore_eos=True)
    for _ in range(5):
        engine.step()
    waiting = [engine.add(PROMPT, n, ignore_eos=True) for n in (6, 7)]

    def fail(*_: Any, **__: Any) -> float:
        raise MemoryError("no memory today")

    with monkeypatch.context() as patch:
        patch.setattr("medusa_ext.engine.engine.step_all", fail)
        with pytest.raises(MemoryError, match="no memory today"):
            engine.step()
    assert running.finish_reason == "error" and isinstance(running.error, MemoryError)
    alone = generate(model, PROMPT, 20, tree=None, ignore_eos=True).tokens
    assert running.result.tokens == alone[: len(running.result.tokens)]
    assert waiting[0].finish_reason == "error" and waiting[0].result.tokens == []
    assert list(engine.run()) == [waiting[1]]
    assert waiting[1].result.tokens == alone[:7]


def test_bad_requests_are_refused_when_they_are_added() -> None:
    model: Model = tiny()
    engine = Engine(model, 1, max_length=16, max_nodes=8)
    with pytest.raises(ValueError, match=r"max_length of 16 tokens, got 20 tokens after 0"):
        engine.add("x" * 20)
    with pytest.raises(ValueError, match="at most the session's 8 nodes, got 9"):
        engine.add("x", tree=9)
    with pytest.raises(ValueError, match="temperature: needs a number"):
        engine.add("x", temperature=-1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'heat'"):
        engine.add("x", heat=1)
    with pytest.raises(ValueError, match=r"max_slowdown: needs a number of 1 or more, got 0\.5"):
        Engine(model, max_slowdown=0.5)
    with pytest.raises(ValueError, match=r"batch: needs an integer in \[1, 4096\], got 0"):
        Engine(model, 0)
    assert engine.is_idle


def test_a_budget_of_rows_follows_what_rows_cost() -> None:
    budget = RowBudget(2.0)
    for _ in range(9):
        budget.observe(0, 0.004)

    def feed(row_seconds: float, steps: int) -> int:
        for _ in range(steps):
            budget.observe(budget.rows, 0.004 + budget.rows * row_seconds)
        return budget.rows

    assert feed(0.0001, 20) == pytest.approx(40, abs=1)
    assert feed(0.0004, 40) == pytest.approx(10, abs=1), "a longer context"
    budget.observe(10, 60.0)
    assert budget.rows == 8, "an interruption"
    assert feed(0.0004, 20) == pytest.approx(10, abs=1)
    free = RowBudget(2.0)
    free.observe(0, 0.004)
    grown = []
    for _ in range(8):
        grown.append(free.rows)
        free.observe(free.rows, 0.004)
    assert grown[-1] == MOST_ROWS and all(b <= 2 * a for a, b in itertools.pairwise(grown))
    assert RowBudget(math.inf).prompts_first and not budget.prompts_first


def test_memory_for_a_few_serves_many() -> None:
    model = tiny()
    page_bytes = _C.Session(model.native, 1, LENGTH, 8).cache_stats()["page_bytes"]
    engine = Engine(model, SLOTS, max_length=LENGTH, max_nodes=8, kv_memory=2 * page_bytes)
    prompts = [f"{PROMPT} number {i}" for i in range(8)]
    requests = [engine.add(prompt, 20, ignore_eos=True) for prompt in prompts]
    most = 0
    while not engine.is_idle:
        engine.step()
        most = max(most, len(engine.running))
    assert most == 2
    for prompt, request in zip(prompts, requests, strict=True):
        alone = generate(model, prompt, 20, ignore_eos=True)
        assert request.result.tokens == alone.tokens
