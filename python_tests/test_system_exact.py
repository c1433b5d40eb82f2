"""The system test: trees never change a token of the real model.

Drafts are planted: plain decoding's own continuation at random nodes and depths, so that paths of
every shape are accepted, among random tokens.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from models import PlantedDrafter, real

from medusa_ext import _C, generate

PROMPTS = [
    "The three laws of motion are",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a village by the sea, there lived",
    "Q: What is 12 times 12?\nA:",
    "List of countries in Europe and their capitals:\n1.",
    "Dear Sir or Madam,\n\nI am writing to",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "import numpy as np\n\ndef softmax(x):",
    "Photosynthesis is the process by which",
    "To make a good cup of tea, first",
    "{\"name\": \"Alice\", \"age\": 31}, {\"name\":",
    "Roses are red, violets are blue,",
    "In 1969, the first",
    "SELECT name, count(*) FROM users",
    "Albert Einstein was born in",
    "The difference between a virus and a bacterium is",
    "<html>\n<head>\n<title>",
    "A, B, C, D, E,",
    "Thank you for your letter of",
    "Water boils at",
]  # fmt: skip


def check(dtype: str, prompts: list[str], length: int, sizes: list[int], seed: int) -> None:
    """Every tree size on every prompt, and lookup, against plain decoding."""
    model = real(dtype)
    options: dict[str, Any] = {"ignore_eos": True}
    shapes = set()
    for prompt in prompts:
        plain = generate(model, prompt, length, tree=None, **options)
        truth = model.tokenizer.encode(prompt) + plain.tokens
        for size in sizes:
            planted = PlantedDrafter([truth], model.config.vocab_size, size, seed)
            out = generate(model, prompt, length, draft=planted, **options)
            assert out.tokens == plain.tokens, (dtype, prompt, size)
            shapes |= {count for count, steps in enumerate(out.stats.accepted) if steps}
        lookup = generate(model, prompt, length, tree=8, draft="lookup", **options)
        assert lookup.tokens == plain.tokens, (dtype, prompt, "lookup")
    # Paths of all lengths up to four drafts were accepted.
    assert {1, 2, 3, 4, 5} <= shapes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trees_are_exact(dtype: str) -> None:
    check(dtype, PROMPTS[:4], 48, [2, 7, 16, 48], seed=1)


def test_sampled_trees_are_exact() -> None:
    model = real("bfloat16")
    options: dict[str, Any] = {"ignore_eos": True, "temperature": 0.8, "top_p": 0.95, "seed": 11}
    for prompt in PROMPTS[:2]:
        plain = generate(model, prompt, 32, tree=None, **options)
        truth = model.tokenizer.encode(prompt) + plain.tokens
        planted = PlantedDrafter([truth], model.config.vocab_size, 16, 5)
        assert generate(model, prompt, 32, draft=planted, **options).tokens == plain.tokens


@pytest.mark.soak
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "int4", "auto"])
def test_many_trees_are_exact(dtype: str, threads: int) -> None:
    before = _C.num_threads()
    _C.set_num_threads(threads)
    try:
        check(dtype, PROMPTS, 128, [2, 5, 11, 24, 64, 130], seed=threads)
    finally:
        _C.set_num_threads(before)


@pytest.mark.soak
def test_threads_do_not_change_a_token() -> None:
    model = real()
    before = torch.get_num_threads()
    found = []
    for threads, prompt in itertools.product((1, 2, 3), PROMPTS[:6]):
        torch.set_num_threads(threads)
        found.append((prompt, tuple(generate(model, prompt, 64, tree=None).tokens)))
    torch.set_num_threads(before)
    assert len(set(found)) == 6
