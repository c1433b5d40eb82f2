"""The K/V cache of a session: what is reused, what fits, and what has to wait."""

from __future__ import annotations

import numpy as np
import pytest
from models import TINY_VOCAB, tiny

from medusa_ext import _C, Model, generate

LENGTH = 600  # three pages of 256 rows, trees included


def model() -> Model:
    return tiny(max_position_embeddings=LENGTH)


def tokens_of(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, TINY_VOCAB, count).astype(np.int32)


def start(native: _C.Session, b: int, tokens: np.ndarray, max_tokens: int = 0) -> int:
    reused = native.begin(b, tokens, max_tokens)
    native.prefill(b, tokens[reused:])
    return reused


def decode(native: _C.Session, b: int, count: int) -> list[int]:
    native.set_active([b])
    emitted = []
    for _ in range(count):
        native.begin_step()
        native.verify()
        native.accept()
        native.compact()
        emitted += native.emitted(b)
    return emitted


@pytest.mark.parametrize("kv_dtype", ["float32", "bfloat16", "int8"])
def test_a_text_starts_from_the_longest_one_that_is_there(kv_dtype: str) -> None:
    native = _C.Session(model().native, 2, LENGTH, 4, kv_dtype)
    known = tokens_of(500, 1)
    assert start(native, 0, known) == 0
    for common in (3, 256, 400):
        text = np.concatenate([known[:common], tokens_of(50, common) + 1]) % TINY_VOCAB
        text[common] = (known[common] + 1) % TINY_VOCAB
        text = text.astype(np.int32)
        alone = _C.Session(model().native, 1, LENGTH, 4, kv_dtype)
        alone.prefill(0, text)
        assert start(native, 1, text) == common
        assert decode(native, 1, 20) == decode(alone, 0, 20)
    stats = native.cache_stats()
    assert (stats["begins"], stats["hits"], stats["rows_reused"]) == (4, 3, 3 + 256 + 400)


def test_memory_bounds_what_runs_at_once() -> None:
    page_bytes = _C.Session(model().native, 1, LENGTH, 4).cache_stats()["page_bytes"]
    native = model().session(3, LENGTH, 4, kv_memory=4 * page_bytes).native
    assert native.cache_stats()["pages"] == 4
    first, second = tokens_of(100, 1), tokens_of(100, 2)
    start(native, 0, first)
    assert not native.can_begin(second)
    assert native.can_begin(second, 200)
    start(native, 1, second, 200)
    with pytest.raises(MemoryError, match="K/V cache: out of memory: needs"):
        native.begin(2, tokens_of(100, 3), 200)
    decode(native, 0, LENGTH - 101)
    decode(native, 1, 90)
    native.free(0)
    assert native.can_begin(tokens_of(100, 3), 200)
    stats = native.cache_stats()
    assert stats["pages_free"] + stats["pages_idle"] == 3


def test_a_batch_within_its_memory() -> None:
    page_bytes = _C.Session(model().native, 1, LENGTH, 4).cache_stats()["page_bytes"]
    session = model().session(4, LENGTH, 4, kv_memory=5 * page_bytes)
    prompts = [tokens_of(20 + b, b).tolist() for b in range(4)]
    results = generate(session, prompts, 30, tree=None, ignore_eos=True)
    for prompt, result in zip(prompts, results, strict=True):
        expected = generate(model(), prompt, 30, tree=None, ignore_eos=True)
        assert result.tokens == expected.tokens


def test_memory_must_hold_one_sequence() -> None:
    page_bytes = _C.Session(model().native, 1, LENGTH, 4).cache_stats()["page_bytes"]
    with pytest.raises(ValueError, match=f"kv_memory: needs at least {3 * page_bytes} bytes"):
        model().session(2, LENGTH, 4, kv_memory=3 * page_bytes - 1)
    with pytest.raises(ValueError, match="kv_memory: needs an integer"):
        model().session(kv_memory=0)
