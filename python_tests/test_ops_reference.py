"""Each operator against its specification, over types and ragged sizes."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from ops_cases import (
    DTYPES,
    assert_as_good_as_plain,
    attention_inputs,
    ints,
    plain_attention,
    random_parents,
)
from torch import Tensor

from medusa_ext import ops
from medusa_ext.ops import reference


def check_attention(inputs, **options) -> None:  # type: ignore[no-untyped-def]
    out = ops.tree_attention(*inputs.args(), **options)
    assert out.dtype == inputs.q.dtype and out.is_contiguous()
    expected = reference.tree_attention(*inputs.args(), **options)
    assert_as_good_as_plain(
        out, plain_attention(inputs, options.get("sliding_window", 0)), expected
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_nodes", [1, 2, 7, 8, 9, 63, 64, 65])
def test_tree_attention_nodes(dtype: torch.dtype, num_nodes: int) -> None:
    generator = random.Random(num_nodes)
    parents = [random_parents(num_nodes, generator) for _ in range(2)]
    check_attention(attention_inputs([70, 0], parents, dtype=dtype, head_size=32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 255, 256, 257, 700])
def test_tree_attention_lengths(dtype: torch.dtype, length: int) -> None:
    parents = [random_parents(5, random.Random(length), width=2)]
    for spare_rows in (0, 9):  # a full cache, and one with room
        check_attention(attention_inputs([length], parents, dtype=dtype, spare_rows=spare_rows))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_size", [8, 40, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("heads", [(1, 1), (9, 3), (8, 1)])
def test_tree_attention_heads(dtype: torch.dtype, head_size: int, heads: tuple[int, int]) -> None:
    parents = [random_parents(6, random.Random(1)) for _ in range(2)]
    check_attention(
        attention_inputs([33, 90], parents, dtype=dtype, heads=heads, head_size=head_size)
    )


def test_tree_attention_largest_trees() -> None:
    for width in (2, 300):
        parents = [random_parents(256, random.Random(3), width)]
        check_attention(attention_inputs([100], parents, head_size=16))


@pytest.mark.parametrize("sliding_window", [1, 3, 64, 65, 200])
def test_tree_attention_sliding_window(sliding_window: int) -> None:
    parents = [random_parents(9, random.Random(2), width=3) for _ in range(2)]
    check_attention(attention_inputs([150, 1], parents), sliding_window=sliding_window)


def test_tree_attention_scale_and_mixed_types() -> None:
    inputs = attention_inputs([20], [[-1, 0]])
    expected = reference.tree_attention(*inputs.args(), scale=0.5)
    torch.testing.assert_close(
        ops.tree_attention(*inputs.args(), scale=0.5).double(), expected, rtol=0, atol=4e-6
    )
    # 16-bit caches under float32 queries lose nothing but the cache's own rounding.
    inputs.k_cache, inputs.v_cache = inputs.k_cache.bfloat16(), inputs.v_cache.bfloat16()
    expected = reference.tree_attention(*inputs.args())
    torch.testing.assert_close(
        ops.tree_attention(*inputs.args()).double(), expected, rtol=0, atol=4e-6
    )


def test_tree_attention_reads_strided_tensors() -> None:
    inputs = attention_inputs([40, 30], [[-1, 0, 0]] * 2, spare_rows=5)
    expected = ops.tree_attention(*inputs.args())

    def strided(cache: Tensor) -> Tensor:
        rows_first = cache.permute(2, 0, 1, 3).contiguous()  # [S, B, G, D]
        return rows_first.permute(1, 2, 0, 3)

    out = ops.tree_attention(
        inputs.q.transpose(1, 2).contiguous().transpose(1, 2),
        strided(inputs.k_cache),
        strided(inputs.v_cache),
        inputs.lengths.repeat_interleave(2)[::2],
        inputs.parents.t().contiguous().t(),
    )
    assert torch.equal(out, expected)


def test_padding_nodes_change_nothing() -> None:
    inputs = attention_inputs([30], [[-1, 0, 1, -1, -1]])
    whole = ops.tree_attention(*inputs.args())
    assert torch.isfinite(whole).all()
    short = ops.tree_attention(
        inputs.q[:, :3], inputs.k_cache, inputs.v_cache, inputs.lengths, inputs.parents[:, :3]
    )
    assert torch.equal(whole[:, :3], short)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_tree_attention_is_the_same_on_any_number_of_threads(num_threads: int) -> None:
    inputs = attention_inputs([900], [random_parents(8, random.Random(4))], heads=(6, 3))
    expected = ops.tree_attention(*inputs.args())
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        assert torch.equal(ops.tree_attention(*inputs.args()), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (3, 2), (2, 3, 17), (5, 1023), (2, 4099), (0, 5)])
def test_argmax(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    # Few distinct values: ties.
    logits = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    out = ops.argmax(logits)
    assert out.dtype == torch.int32 and out.shape == shape[:-1]
    assert torch.equal(out, reference.argmax(logits))


def test_argmax_of_nan_and_infinity() -> None:
    nan, infinity = math.nan, math.inf
    logits = torch.tensor(
        [[nan, 1.0, 2.0], [nan, nan, nan], [nan, -infinity, nan], [1.0, infinity, nan]]
    )
    assert ops.argmax(logits).tolist() == reference.argmax(logits).tolist() == [2, -1, -1, -1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocabulary", [32, 257, 3001])
@pytest.mark.parametrize("top_k", [1, 7, 32])
def test_candidates(dtype: torch.dtype, vocabulary: int, top_k: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(2, 3, vocabulary, generator=generator).to(dtype)  # 16 bits: ties
    depths = ints([0, 1, 1, 2, 3])
    ranks = ints([0, 0, top_k - 1, top_k // 2, 0])
    token_map = torch.randperm(vocabulary, generator=generator).int() + 5
    for mapping in (None, token_map):
        args = (logits, ints([7, 8]), depths, ranks)
        out = ops.candidates(*args, top_k=top_k, token_map=mapping)
        tokens, top_ids, log_probs = reference.candidates(*args, top_k=top_k, token_map=mapping)
        assert torch.equal(out.tokens, tokens)
        assert torch.equal(out.top_ids, top_ids)
        torch.testing.assert_close(out.top_log_probs, log_probs, rtol=0, atol=4e-6)


@pytest.mark.parametrize("num_nodes", [1, 2, 31, 64, 65, 256])
def test_accept(num_nodes: int) -> None:
    generator = random.Random(num_nodes)
    parents = ints([random_parents(num_nodes, generator, width=4) for _ in range(20)])
    tokens = ints([[generator.randrange(3) for _ in range(num_nodes)] for _ in range(20)])
    targets = ints([[generator.randrange(3) for _ in range(num_nodes)] for _ in range(20)])
    out = ops.accept(tokens, targets, parents)
    for got, expected in zip(out, reference.accept(tokens, targets, parents), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_nodes", [1, 6, 40])
def test_accept_typical(dtype: torch.dtype, num_nodes: int) -> None:
    generator = random.Random(num_nodes)
    torch_generator = torch.Generator().manual_seed(num_nodes)
    parents = ints([random_parents(num_nodes, generator) for _ in range(8)])
    tokens = ints([[generator.randrange(30) for _ in range(num_nodes)] for _ in range(8)])
    logits = torch.randn(8, num_nodes, 30, generator=torch_generator).to(dtype)
    args = (tokens, logits, parents, torch.arange(8), ints([5] * 8))
    for epsilon, delta in ((0.09, 0.3), (0.02, 0.3), (1.0, 0.5)):
        options: dict[str, Any] = {
            "temperature": 0.7,
            "epsilon": epsilon,
            "delta": delta,
            "top_p": 0.9,
        }
        out = ops.accept_typical(*args, **options)
        for got, expected in zip(out, reference.accept_typical(*args, **options), strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_compact(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    # K, V and the scales of an int8 cache, which has rows of another size.
    caches = [
        torch.randint(-100, 100, shape, generator=generator).to(dtype)
        for shape in [(3, 2, 30, 16)] * 3 + [(3, 2, 30, 1)] * 2 + [(3, 2, 30, 16)]
    ]
    expected = [cache.clone() for cache in caches]
    path = ints([[0, 1, 3, 4], [0, 2, 9, 11], [0, -1, -1, -1]])
    count = ints([4, 3, 0])
    length, expected_length = ints([26 - 1, 10, 30]), ints([26 - 1, 10, 30])
    reference.compact(expected, expected_length, path, count)
    ops.compact(caches, length, path, count)
    assert torch.equal(length, expected_length) and length.tolist() == [29, 13, 30]
    for got, cache in zip(caches, expected, strict=True):
        assert torch.equal(got, cache)
    ops.compact([], length, path, count)
    assert length.tolist() == [33, 16, 30]


def test_nothing_to_do() -> None:
    empty = torch.empty(0, dtype=torch.int32)
    none = torch.empty(0, 4, dtype=torch.int32)
    assert ops.accept(none, none, none).path.shape == (0, 4)
    assert ops.sample(torch.empty(0, 9), torch.empty(0, dtype=torch.int64), empty).shape == (0,)
    out = ops.candidates(torch.empty(0, 2, 9), empty, ints([0, 1]), ints([0, 0]), top_k=3)
    assert [tuple(t.shape) for t in out] == [(0, 2), (0, 2, 3), (0, 2, 3)]
    cache = torch.empty(0, 2, 8, 16)
    assert ops.tree_attention(torch.empty(0, 4, 2, 16), cache, cache, empty, none).shape[0] == 0
    ops.compact([cache], empty, none, empty)
