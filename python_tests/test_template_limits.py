"""A chat template neither hangs nor eats memory, and what real ones do is allowed."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from models import TEMPLATE, byte_tokenizer
from transformers import PreTrainedTokenizerFast

from medusa_ext.text import template_limits
from medusa_ext.text.chat import encode_chat

ASK = [{"role": "user", "content": "hi"}]
REAL = (
    "{% set ns = namespace(found=false) %}{% for m in messages %}{% if loop.index0 % 2 == 0 %}"
    "**{{ m['role'] | trim }}**: {{ m.content.split('x')[-1].strip() }}{% set ns.found = true %}"
    "{% endif %}{% endfor %}{{ '-' * 40 }}{{ 3 * loop_count | default(1) }}"
    "{% if add_generation_prompt %}* go {% endif %}"
)


def encode(template: str) -> list[int]:
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer())
    tokenizer.chat_template = template
    return encode_chat(tokenizer, ASK)


@pytest.mark.parametrize("template", [TEMPLATE, REAL, "{{ messages[0].content | indent(4) }}"])
def test_what_templates_do_is_allowed(template: str) -> None:
    assert len(encode(template)) > 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'x' * messages[0].content * 99999999 }}",
        "{{ 'x' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{{ 'x' | center(10000000000) }}",
        "{{ 'x'.ljust(10000000000) }}",
        "{{ lipsum(n=10000) | lipsum }}",
    ],
)
def test_huge_steps_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="chat template refused it: needs to do without"):
        encode(template)


def test_an_endless_template_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "SECONDS", 0.5)
    loop = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    start = time.monotonic()
    with pytest.raises(ValueError, match="chat template refused it: needs to end within"):
        encode(loop)
    assert time.monotonic() - start < 30  # it would take years


def test_a_growing_template_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "GROWTH_BYTES", 64 << 20)
    doubling = (
        "{% set ns = namespace(x='medusa') %}{% for i in range(24) %}{% set ns.x = ns.x ~ ns.x %}"
        "{% endfor %}{{ ns.x | length }}"
    )
    with pytest.raises(ValueError, match="chat template refused it: needs to do with 64 MiB"):
        encode(doubling)


def check_damaged(cases: int, seed: int) -> None:
    """Damaged templates give text or a ValueError, and soon."""
    rng = random.Random(seed)
    pieces = [TEMPLATE, REAL, "{%", "%}", "{{", "}}", "*", "**", "range(99999)", "~", "|join", "("]
    for _ in range(cases):
        text = rng.choice(pieces[:2])
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(text))
            text = (
                text[:at]
                + rng.choice(["", *pieces[2:], chr(rng.randrange(1, 0x500))])
                + (text[at + rng.randrange(4) :])
            )
        start = time.monotonic()
        try:
            encode(text)
        except ValueError as error:
            assert str(error).startswith("prompt: "), (text, error)
        assert time.monotonic() - start < 60, text


def test_60_damaged_templates() -> None:
    check_damaged(60, seed=1)


@pytest.mark.soak
def test_5000_damaged_templates() -> None:
    check_damaged(5000, seed=2)
