"""Drafters: each gives plain decoding's tokens; what each adds to a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from models import tiny, tiny_directory, tiny_heads, tiny_with_heads

import medusa_ext
from medusa_ext import Tree, generate
from medusa_ext.drafting.auto import AutoDrafter
from medusa_ext.drafting.costs import CostCurve, LiveCosts
from medusa_ext.drafting.fixed import CombinedDrafter, HeadsDrafter, LookupDrafter, NoDrafter
from medusa_ext.engine.drafters import make_drafter
from medusa_ext.engine.options import Options

PROMPT = "to be or not to be, that is"
# Nodes are nearly free: everything that could be drafted is.
FREE = CostCurve([1, 64], [1e-3, 1.0001e-3])


@pytest.mark.parametrize("kind", ["medusa", "root"])
@pytest.mark.parametrize("draft", ["heads", "lookup", "both"])
@pytest.mark.parametrize("tree", [2, 8, 40, Tree([[0], [1], [0, 3], [0, 3, 2]])])
def test_every_drafter_is_exact(kind: str, draft: str, tree: Any) -> None:
    if draft == "lookup" and isinstance(tree, Tree):
        pytest.skip("a Tree arranges the guesses of heads")
    model = tiny_with_heads(kind)
    for temperature in (0.0, 1.0):
        options = {"temperature": temperature, "seed": 9, "ignore_eos": True}
        plain = generate(model, PROMPT, 50, tree=None, **options)
        out = generate(model, PROMPT, 50, tree=tree, draft=draft, **options)
        assert out.tokens == plain.tokens
        assert out.stats.draft == draft


def drafted(model: medusa_ext.Model, drafter: Any) -> tuple[list[int], list[int]]:
    """Tokens and parents of the tree that a drafter makes after the prompt."""
    session = model.session(max_length=128).native
    session.prefill(0, model.tokenizer.encode(PROMPT, return_tensors="np")[0].astype("int32"))
    session.begin_step()
    drafter.propose(session, [0])
    tokens, parents = session.tree(0)
    return tokens.tolist(), parents.tolist()


def test_heads_nodes_hold_the_ranked_guesses() -> None:
    model = tiny_with_heads()
    tree = Tree([[0], [2], [0, 1], [2, 0], [0, 1, 1]])
    tokens, parents = drafted(model, HeadsDrafter(model.heads, tree))
    session = model.session(max_length=128).native
    session.prefill(0, model.tokenizer.encode(PROMPT, return_tensors="np")[0].astype("int32"))
    ids = session.head_candidates(model.heads, 3)[0][0]
    assert parents == list(tree.parents)
    assert tokens[1:] == [int(ids[len(path) - 1, path[-1]]) for path in tree.paths]


def test_lookup_continues_an_earlier_match() -> None:
    model = tiny()
    tokens, parents = drafted(model, LookupDrafter(5))
    text = [*model.tokenizer.encode(PROMPT), tokens[0]]
    tail = text[-2:]
    found = [i for i in range(len(text) - 2) if text[i : i + 2] == tail]
    if not found:
        assert parents == [-1]
    else:
        assert parents == [-1, 0, 1, 2, 3]
        assert any(text[i + 2 : i + 6] == tokens[1:] for i in found)


def step_paths(session: Any, drafter: Any) -> set[tuple[int, ...]]:
    """The token paths of the tree that a drafter makes in a new step."""
    session.begin_step()
    drafter.propose(session, [0])
    tokens, parents = session.tree(0)
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tokens.tolist(), parents.tolist(), strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    return set(paths)


def test_combined_fills_the_rest_with_the_heads() -> None:
    model = tiny_with_heads()
    tree = Tree([[0], [1], [2], [0, 0], [0, 1], [1, 0]])
    drafter = CombinedDrafter.of_tree(model.heads, tree)
    assert drafter.max_nodes == 7
    session = model.session(max_length=250, max_nodes=32).native
    session.prefill(0, model.tokenizer.encode(PROMPT, return_tensors="np")[0].astype("int32"))
    kinds = set()
    while session.lengths[0] < 240:
        lookup = step_paths(session, LookupDrafter(4, min_ngram=3))
        half = step_paths(session, HeadsDrafter(model.heads, tree.first(4)))
        full = step_paths(session, HeadsDrafter(model.heads, tree))
        both = step_paths(session, drafter)
        assert both == (lookup | half if len(lookup) > 1 else full)
        kinds.add(len(lookup) > 1)
        session.verify()
        session.accept()
        session.compact()
    assert kinds == {False, True}


def test_trees_deeper_than_the_heads() -> None:
    model = tiny_with_heads()
    deep = Tree([[0], [0, 0], [0, 0, 0], [0, 0, 0, 0]])
    for draft in ("heads", "both"):
        with pytest.raises(ValueError, match=r"depth at most 3 \(the model's heads\), got 4"):
            generate(model, PROMPT, tree=deep, draft=draft)


def test_choice_of_the_drafter() -> None:
    heads, none = tiny_with_heads(), tiny()

    def kind(model: medusa_ext.Model, **options: Any) -> type:
        return type(make_drafter(model, Options.checked(**options), 64))

    assert kind(none, tree=None) is NoDrafter
    assert kind(none, tree=1) is NoDrafter
    assert kind(none, tree=8) is LookupDrafter
    assert kind(heads, tree=8) is CombinedDrafter
    assert kind(heads, tree=8, draft="heads") is HeadsDrafter
    assert kind(heads, tree=8, draft="lookup") is LookupDrafter


def test_calibrated_heads_choose_their_trees() -> None:
    model = tiny_with_heads(traces=True)
    assert model.calibrated and model.trees().max_nodes > 8
    assert not tiny_with_heads().calibrated
    plain = generate(model, PROMPT, 30, tree=None, ignore_eos=True)
    assert generate(model, PROMPT, 30, tree=20, ignore_eos=True).tokens == plain.tokens


class Timed:
    """An automatic drafter that is told the times of a cost curve instead of the real ones."""

    def __init__(self, curve: CostCurve, told: CostCurve | None = None, **options: Any) -> None:
        """`curve`: the machine's; `told`: the one measured before, if it is another."""
        self._curve = curve
        self._now = 0.0
        self._inner = AutoDrafter(LiveCosts(told or curve), 32, clock=self._clock, **options)
        self.max_nodes, self.name = self._inner.max_nodes, self._inner.name
        self.rows: list[int] = []

    def _clock(self) -> float:
        # Each pair of readings is one evaluation of the heads.
        self._now += self._curve.heads
        return self._now

    def propose(self, session: Any, active: Sequence[int]) -> bool:
        before = self._now
        drafted = self._inner.propose(session, active)
        self.rows.append(sum(len(session.tree(b)[0]) for b in active))
        self._seconds = self._curve.step(self.rows[-1])
        self._seconds += self._curve.heads if self._now > before else 0.0
        return drafted

    def observe(self, emitted: Sequence[Sequence[int]], seconds: float) -> None:
        self._inner.observe(emitted, self._seconds)


def with_heads(model: medusa_ext.Model) -> dict[str, Any]:
    return {"heads": model.heads, "trees": model.trees()}


@pytest.mark.parametrize("use", ["lookup", "heads", "both"])
def test_auto_is_exact_and_drafts_where_nodes_are_free(use: str) -> None:
    model = tiny_with_heads()
    heads = {} if use == "lookup" else with_heads(model)
    drafter = Timed(FREE, use_lookup=use != "heads", **heads)
    prompts = [PROMPT, "aaaa aaaa"]
    plain = generate(model, prompts, 80, tree=None, ignore_eos=True)
    out = generate(model, prompts, 80, draft=drafter, ignore_eos=True)
    assert [result.tokens for result in out] == [result.tokens for result in plain]
    assert out[0].stats.draft == use
    assert out[0].stats.plain_steps < out[0].stats.steps


def test_auto_decodes_plainly_where_nodes_cost_too_much() -> None:
    model = tiny_with_heads()
    dear = CostCurve([1, 2, 64], [1e-3, 2.2e-3, 64e-3], heads=5e-3)
    out = generate(model, PROMPT, 200, draft=Timed(dear, **with_heads(model)), ignore_eos=True)
    # Heads are tried once in 64 steps; everything else is plain.
    assert out.stats.plain_steps >= out.stats.steps - 4


def test_auto_corrects_a_wrong_curve() -> None:
    """Measured on a busy machine, nodes looked free: after a few steps nothing is drafted."""
    model = tiny_with_heads()
    dear = CostCurve([1, 2, 64], [1e-3, 2.2e-3, 64e-3], heads=5e-3)
    drafter = Timed(dear, told=FREE, **with_heads(model))
    generate(model, PROMPT, 200, draft=drafter, ignore_eos=True)
    assert max(drafter.rows[:8]) > 8
    assert sum(rows > 1 for rows in drafter.rows[100:]) <= 4


def test_auto_gives_up_heads_that_are_never_right() -> None:
    """After a while their nodes are no longer drafted."""
    heads = tiny_heads(useless=True)
    model = medusa_ext.load(tiny_directory(), heads=heads, dtype="float32")
    curve = CostCurve([1, 8, 64], [1e-3, 1.2e-3, 8e-3], heads=0.1e-3)
    drafter = Timed(curve, use_lookup=False, **with_heads(model))
    out = generate(model, PROMPT, 200, draft=drafter, ignore_eos=True)
    assert out.stats.steps > 60
    assert out.stats.plain_steps > out.stats.steps // 2


def test_heads_for_another_size(tmp_path: Any) -> None:
    directory = tiny_directory("llama", hidden_size=32, num_attention_heads=2)
    with pytest.raises(ValueError, match="hidden size of the heads: needs the base model's 32"):
        medusa_ext.load(directory, heads=tiny_heads())
