"""Sampling: against the specification, and its distribution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ops_cases import DTYPES, ints

from medusa_ext import ops
from medusa_ext.ops import reference

RULES = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 20, "temperature": 1.5},
    {"top_p": 0.9},
    {"top_p": 0.3, "temperature": 0.7},
    {"top_k": 50, "top_p": 0.8},
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_sample_matches_the_specification(dtype: torch.dtype, rule: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    for vocabulary, spread in ((1, 1.0), (7, 0.1), (300, 2.0), (1500, 6.0)):
        logits = (torch.randn(4, 2, vocabulary, generator=generator) * spread).to(dtype)
        seeds = torch.randint(-(2**62), 2**62, (4, 2), generator=generator)
        positions = torch.randint(0, 1 << 20, (4, 2), generator=generator).int()
        out = ops.sample(logits, seeds, positions, **rule)
        assert out.dtype == torch.int32
        assert torch.equal(out, reference.sample(logits, seeds, positions, **rule))


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected)[expected > 0].sum())


@pytest.mark.parametrize("rule", [{}, {"temperature": 0.6}, {"top_k": 6}, {"top_p": 0.8}], ids=str)
def test_sample_follows_the_distribution(rule: dict[str, Any]) -> None:
    draws = 200_000
    logits = torch.randn(12, generator=torch.Generator().manual_seed(2)) * 1.5
    # Seeds and positions both vary, as they do over prompts and over a text.
    seeds = torch.arange(draws) // 400
    positions = (torch.arange(draws) % 400).int()
    out = ops.sample(logits.expand(draws, -1), seeds, positions, **rule)
    kept = reference.kept(logits, **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, **rule})
    scaled = torch.where(kept, logits.double() / rule.get("temperature", 1.0), -math.inf)
    counts = out.bincount(minlength=12).double()
    assert not counts[~kept].any()
    # The 99.99 % quantile of 11 degrees of freedom.
    assert chi_square(counts, scaled.softmax(-1)) < 37.4


def test_neighbouring_positions_and_seeds_are_independent() -> None:
    logits = torch.zeros(4).expand(40_000, -1)
    positions = torch.arange(40_000, dtype=torch.int32)
    seeds = torch.zeros(40_000, dtype=torch.int64)
    here = ops.sample(logits, seeds, positions)
    for other in (
        ops.sample(logits, seeds, positions + 1),
        ops.sample(logits, seeds + 1, positions),
    ):
        pairs = (here * 4 + other).bincount(minlength=16).double()
        assert chi_square(pairs, torch.full((16,), 1 / 16, dtype=torch.float64)) < 44.3


def test_a_token_is_the_same_in_any_batch() -> None:
    logits = torch.randn(6, 500, generator=torch.Generator().manual_seed(1))
    seeds, positions = torch.arange(6), ints([4, 9, 1, 1, 30, 2])
    together = ops.sample(logits, seeds, positions, top_p=0.95)
    alone = [int(ops.sample(logits[i], seeds[i], positions[i], top_p=0.95)) for i in range(6)]
    assert together.tolist() == alone


def test_noise_is_finite() -> None:
    # Every bit pattern at the ends of the range, through the specification's own formula.
    noise = reference.gumbel(3, 5, 20_000)
    assert torch.isfinite(noise).all()
    assert abs(float(noise.mean()) - 0.5772) < 0.03
    assert abs(float(noise.var()) - math.pi**2 / 6) < 0.1
