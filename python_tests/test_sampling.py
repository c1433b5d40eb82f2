"""Sampling: the model's own distribution, whatever the tree; seeds; typical acceptance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import TINY_VOCAB, PlantedDrafter, real, tiny, tiny_with_heads

from medusa_ext import generate

PROMPT = "so it goes"
SENTENCE = "The best thing about the weekend is"
TREES: list[dict[str, Any]] = [
    {"tree": 2, "draft": "lookup"},
    {"tree": 12, "draft": "lookup"},
    {"tree": 8, "draft": "heads"},
    {"tree": 40, "draft": "both"},
]


@pytest.mark.parametrize(
    "cut", [{}, {"top_p": 0.7}, {"top_k": 5}, {"top_k": 20, "top_p": 0.9}, {"temperature": 2.5}]
)
def test_a_seed_gives_one_text_for_any_tree(cut: dict[str, Any]) -> None:
    model = tiny_with_heads()
    options = {"temperature": 0.9, "ignore_eos": True} | cut
    texts = set()
    for seed in (1, 2, 3):
        plain = generate(model, PROMPT, 40, tree=None, seed=seed, **options)
        assert plain.seed == seed
        texts.add(plain.text)
        for tree in TREES:
            out = generate(model, PROMPT, 40, seed=seed, **tree, **options)
            assert out.tokens == plain.tokens
        truth = model.tokenizer.encode(PROMPT) + plain.tokens
        planted = PlantedDrafter([truth], TINY_VOCAB, 16, seed)
        out = generate(model, PROMPT, 40, seed=seed, draft=planted, **options)
        assert out.tokens == plain.tokens and out.stats.tokens_per_step > 1.5
    assert len(texts) == 3


def test_drawn_seeds_are_reported() -> None:
    model = tiny()
    first = generate(model, PROMPT, 20, temperature=1.0)
    second = generate(model, PROMPT, 20, temperature=1.0)
    assert first.seed is not None and first.seed != second.seed
    again = generate(model, PROMPT, 20, temperature=1.0, seed=first.seed)
    assert again.tokens == first.tokens
    listed = generate(model, [PROMPT, PROMPT], 20, temperature=1.0, seed=[second.seed, first.seed])
    assert [out.tokens for out in listed] == [second.tokens, first.tokens]


def check_counts(what: str, counts: np.ndarray, probabilities: np.ndarray) -> None:
    """Pearson's chi-square test of drawn counts; prints the statistic, its degrees of freedom and
    p, the probability of a larger one. A true distribution fails once in a million."""
    assert counts[probabilities == 0].sum() == 0
    counts, probabilities = counts[probabilities > 0], probabilities[probabilities > 0]
    statistic, freedom = chi_square(counts, probabilities)
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    p = float(torch.special.gammaincc(half[0], half[1]))
    print(
        f"{what}: {counts.sum():.0f} draws, chi-square {statistic:.1f}, {freedom} df, p = {p:.3f}"
    )
    assert freedom >= 3 and p > 1e-6


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
    """Pearson's statistic and degrees of freedom; cells expected below 5 are joined."""
    expected = probabilities * counts.sum()
    small = expected < 5
    observed = np.append(counts[~small], counts[small].sum())
    expected = np.append(expected[~small], expected[small].sum())
    if expected[-1] < 5:
        observed[-2] += observed[-1]
        expected[-2] += expected[-1]
        observed, expected = observed[:-1], expected[:-1]
    return float(((observed - expected) ** 2 / expected).sum()), len(observed) - 1


def test_a_wrong_distribution_is_noticed() -> None:
    """Draws of slightly other probabilities fail, their own pass."""
    rng = np.random.default_rng(0)
    true = np.arange(1, 21) / np.arange(1, 21).sum()
    counts = rng.multinomial(4000, true).astype(float)
    check_counts("itself", counts, true)
    with pytest.raises(AssertionError):
        check_counts("another", counts, true**1.3 / (true**1.3).sum())


def distribution(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The sampled distribution in float64: temperature, then top-k, then top-p."""
    scores = logits.astype(np.float64) / temperature
    order = np.argsort(-scores, kind="stable")
    probabilities = np.exp(scores - scores.max())
    if top_k:
        probabilities[order[top_k:]] = 0
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities[order]) - probabilities[order]
    probabilities[order[before >= top_p]] = 0
    return np.asarray(probabilities / probabilities.sum())


def session_after(model: Any, ids: Sequence[int], batch: int = 1) -> Any:
    """A native session that holds all of `ids` but the last, and keeps logits."""
    session = model.session(batch=batch, max_length=64, max_nodes=8).native
    for b in range(batch):
        session.keep_logits(b, True)
        session.prefill(b, np.array(ids[:-1], np.int32))
    return session


def next_logits(model: Any, ids: Sequence[int]) -> np.ndarray:
    session = session_after(model, ids)
    session.prefill(0, np.array(ids[-1:], np.int32))
    logits: np.ndarray = session.prefill_logits()
    return logits


CUTS: list[dict[str, Any]] = [{}, {"top_k": 7}, {"top_p": 0.8}, {"top_k": 30, "top_p": 0.6}]


def check_draws(model: Any, ids: list[int], temperature: float, cut: dict[str, Any]) -> None:
    """Compares prefill's draws, over 4000 seeds, with the distribution of its logits."""
    logits = next_logits(model, ids)
    expected = distribution(logits, temperature, cut.get("top_k", 0), cut.get("top_p", 1.0))
    session = session_after(model, ids)
    last = np.array(ids[-1:], np.int32)
    counts = np.zeros(len(expected))
    for seed in range(4000):
        session.set_sampling(0, temperature, cut.get("top_p", 1.0), cut.get("top_k", 0), seed)
        session.truncate(0, len(ids) - 1)
        counts[session.prefill(0, last)] += 1
    check_counts(f"first token of {Path(model.name).name}, {temperature=} {cut}", counts, expected)


@pytest.mark.parametrize("cut", CUTS)
def test_draws_follow_the_distribution(cut: dict[str, Any]) -> None:
    model = tiny()
    check_draws(model, model.tokenizer.encode(PROMPT), 1.5, cut)


def test_draws_of_the_real_model() -> None:
    check_draws_in_batches(256, 0.8, {"top_p": 0.9})


@pytest.mark.soak
@pytest.mark.parametrize("cut", CUTS)
def test_many_draws_of_the_real_model(cut: dict[str, Any]) -> None:
    check_draws_in_batches(4096, 1.5, cut)


def check_draws_in_batches(draws: int, temperature: float, cut: dict[str, Any]) -> None:
    """The real model's first token in batches of 32 equal sequences: the weights are read once for
    each batch."""
    model, batch = real(), 32
    ids = model.tokenizer.encode(SENTENCE)
    top_k, top_p = cut.get("top_k", 0), cut.get("top_p", 1.0)
    expected = distribution(next_logits(model, ids), temperature, top_k, top_p)
    session = session_after(model, ids, batch)
    counts = np.zeros(len(expected))
    for seed in range(0, draws, batch):
        for b in range(batch):
            session.keep_logits(b, False)
            session.set_sampling(b, temperature, top_p, top_k, seed + b)
            session.truncate(b, len(ids) - 1, ids[-1])
        session.begin_step()
        finish_step(session)
        np.add.at(counts, [session.emitted(b)[0] for b in range(batch)], 1)
    check_counts(f"first token of the real model, {temperature=} {cut}", counts, expected)


def test_tokens_of_trees_follow_the_distribution() -> None:
    check_two_tokens(tiny(), PROMPT, 6000, 100)


def test_tokens_of_trees_of_the_real_model() -> None:
    check_two_tokens(real(), SENTENCE, 256, 32)


@pytest.mark.soak
def test_many_tokens_of_trees_of_the_real_model() -> None:
    check_two_tokens(real(), SENTENCE, 6000, 100)


def check_two_tokens(model: Any, text: str, draws: int, batch: int) -> None:
    """Two tokens drawn through trees with right and wrong drafts: their joint distribution is
    that of the logits after each."""
    prompt = model.tokenizer.encode(text)
    root = int(next_logits(model, prompt).argmax())
    sampling = (1.2, 4, 1.0)
    first = distribution(next_logits(model, [*prompt, root]), *sampling)
    choices = np.flatnonzero(first).tolist()
    joint = [
        first[t] * distribution(next_logits(model, [*prompt, root, t]), *sampling) for t in choices
    ]
    counts = np.zeros((len(choices), model.config.vocab_size))
    session = session_after(model, [*prompt, root], batch)
    for seed in range(0, draws, batch):
        session.set_active(list(range(batch)))
        for b in range(batch):
            session.keep_logits(b, False)
            session.set_sampling(b, 1.2, 1.0, 4, seed + b)
            session.truncate(b, len(prompt), root)
        for b, (one, two) in enumerate(two_tokens(session, batch, choices)):
            assert one in choices, b
            counts[choices.index(one), two] += 1
    what = f"two tokens of {Path(model.name).name} through trees"
    check_counts(what, counts.reshape(-1), np.stack(joint).reshape(-1))


def two_tokens(session: Any, batch: int, choices: list[int]) -> list[list[int]]:
    """The next two tokens of each sequence, by one step with drafts and, where it brought only
    one token, a plain one."""
    session.begin_step()
    for b in range(batch):
        child = session.add_node(b, 0, choices[b % len(choices)])
        session.add_node(b, child, b)
        session.add_node(b, 0, choices[(b + 1) % len(choices)])
    finish_step(session)
    drawn = [session.emitted(b)[:2] for b in range(batch)]
    pending = [b for b in range(batch) if len(drawn[b]) == 1]
    session.set_active(pending)
    session.begin_step()
    finish_step(session)
    for b in pending:
        drawn[b] = drawn[b] + session.emitted(b)
    return drawn


def finish_step(session: Any) -> None:
    session.verify()
    session.accept()
    session.compact()


def test_cold_sampling_is_greedy() -> None:
    model = tiny()
    greedy = generate(model, PROMPT, 30, tree=None, ignore_eos=True)
    for cut in ({"temperature": 1e-4}, {"temperature": 1.0, "top_k": 1}):
        assert generate(model, PROMPT, 30, ignore_eos=True, seed=1, **cut).tokens == greedy.tokens


def test_typical_acceptance() -> None:
    """At temperature 0 greedy; above, a seed gives one text per tree, and loose thresholds accept
    more than tight ones."""
    model = tiny_with_heads()
    options = {"acceptance": "typical", "ignore_eos": True, "draft": "both", "tree": 30}
    greedy = generate(model, PROMPT, 30, tree=None, ignore_eos=True)
    assert generate(model, PROMPT, 30, **options).tokens == greedy.tokens
    options |= {"temperature": 1.0, "seed": 4}
    first = generate(model, PROMPT, 100, epsilon=0.0, delta=0.0, **options)
    assert first.tokens == generate(model, PROMPT, 100, epsilon=0.0, delta=0.0, **options).tokens
    strict = generate(model, PROMPT, 100, epsilon=1.0, delta=1.0, **options)
    assert first.stats.tokens_per_step > strict.stats.tokens_per_step
    plain = [generate(model, PROMPT, 30, **(options | {"tree": None})) for _ in range(2)]
    assert plain[0].tokens == plain[1].tokens
