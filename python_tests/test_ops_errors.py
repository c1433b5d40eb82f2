"""Every bad input of the operators: a ValueError that says what was needed and what was got."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops_cases import attention_inputs, ints

from medusa_ext import ops


def check(
    call: Callable[..., Any], good: dict[str, Any], bad: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(**{**good, **bad})


def attention_arguments() -> dict[str, Any]:
    inputs = attention_inputs([10, 3], [[-1, 0, 0], [-1, 0, 1]], head_size=16)
    return vars(inputs)


LONG = torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"q": torch.zeros(2, 3, 4, 16).double()},
            "tree_attention: q must be Float, BFloat16 or Half, got Double",
        ),
        ({"q": torch.zeros(2, 3, 4)}, "tree_attention: q must be [B, N, Q, D], got [2, 3, 4]"),
        (
            {"q": torch.zeros(2, 3, 3, 16)},
            "tree_attention: q must have a multiple of the 2 KV heads, got 3 heads",
        ),
        (
            {"q": torch.zeros(2, 3, 0, 16)},
            "tree_attention: q must have a multiple of the 2 KV heads, got 0 heads",
        ),
        (
            {"q": torch.zeros(2, 3, 4, 8)},
            "tree_attention: k_cache must have q's head size D = 8, got [2, 2, 13, 16]",
        ),
        (
            {"q": torch.zeros(1, 3, 4, 16)},
            "tree_attention: k_cache must have q's B = 1 sequences, got [2, 2, 13, 16]",
        ),
        (
            {"q": torch.zeros(2, 0, 4, 16)},
            "tree_attention: q.shape[1] must be from 1 to 1024, got 0",
        ),
        (
            {"q": torch.zeros(2, 3, 4, 16).to_sparse()},
            "tree_attention: q must be dense, got Sparse",
        ),
        (
            {"k_cache": torch.zeros(2, 2, 13)},
            "tree_attention: k_cache must be [B, G, S, D], got [2, 2, 13]",
        ),
        (
            {"k_cache": torch.zeros(2, 2, 16, 13).transpose(2, 3)},
            "tree_attention: k_cache must have contiguous rows, got strides",
        ),
        (
            {"k_cache": torch.zeros(2, 2, 13, 16).int()},
            "tree_attention: k_cache must be Float, BFloat16 or Half, got Int",
        ),
        (
            {"v_cache": torch.zeros(2, 2, 13, 16).half()},
            "tree_attention: v_cache must be Float, got Half",
        ),
        (
            {"v_cache": torch.zeros(2, 2, 14, 16)},
            "tree_attention: v_cache must be as k_cache = [2, 2, 13, 16], got [2, 2, 14, 16]",
        ),
        (
            {"v_cache": torch.zeros(2, 13, 2, 16).transpose(1, 2)},
            "tree_attention: v_cache must have k_cache's strides",
        ),
        (
            {"k_cache": torch.zeros(2, 2, 2, 16), "v_cache": torch.zeros(2, 2, 2, 16)},
            "tree_attention: k_cache.shape[2] must be from 3 to",
        ),
        ({"lengths": ints([10])}, "tree_attention: lengths must be [B] = [2], got [1]"),
        ({"lengths": torch.tensor([10, 3])}, "tree_attention: lengths must be Int, got Long"),
        ({"lengths": ints([11, 3])}, "tree_attention: lengths must be from 0 to 10, got 11"),
        ({"lengths": ints([1, -1])}, "tree_attention: lengths must be from 0 to 10, got -1"),
        (
            {"parents": ints([[-1, 0, 0]])},
            "tree_attention: parents must be [B, N] = [2, 3], got [1, 3]",
        ),
        ({"parents": LONG}, "tree_attention: parents must be Int, got Long"),
        (
            {"parents": ints([[-1, 0, 0], [-1, 0, 2]])},
            "tree_attention: parents must be -1 or an earlier node, got 2 for node 2",
        ),
        (
            {"parents": ints([[-1, 0, 0], [-2, 0, 1]])},
            "tree_attention: parents must be -1 or an earlier node, got -2 for node 0",
        ),
        ({"sliding_window": -1}, "tree_attention: sliding_window must be from 0 to"),
    ],
)
def test_tree_attention(bad: dict[str, Any], message: str) -> None:
    check(ops.tree_attention, attention_arguments(), bad, message)


@pytest.mark.parametrize("head_size", [4, 12, 264])
def test_tree_attention_head_sizes(head_size: int) -> None:
    inputs = attention_inputs([2], [[-1]], head_size=head_size)
    message = f"head size that is a multiple of 8 up to 256, got {head_size}"
    with pytest.raises(ValueError, match=message):
        ops.tree_attention(*inputs.args())


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(2, 3).long(), "argmax: logits must be Float, BFloat16 or Half, got Long"),
        (torch.tensor(1.0), "argmax: logits must be [..., V] with V >= 1, got []"),
        (torch.zeros(3, 0), "argmax: logits must be [..., V] with V >= 1, got [3, 0]"),
        (torch.zeros(2, 3).to_sparse(), "argmax: logits must be dense, got Sparse"),
        (torch.zeros(2, 3, device="meta").to("meta"), None),
    ],
)
def test_argmax(logits: torch.Tensor, message: str | None) -> None:
    if message is None:  # tensors without data take the fake path
        assert ops.argmax(logits).device.type == "meta"
        return
    check(ops.argmax, {}, {"logits": logits}, message)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"logits": torch.zeros(2, 0)}, "sample: logits must be [..., V] with V >= 1, got [2, 0]"),
        ({"seeds": torch.zeros(2).int()}, "sample: seeds must be Long, got Int"),
        (
            {"seeds": torch.zeros(3).long()},
            "sample: seeds must be logits.shape[:-1] = [2], got [3]",
        ),
        ({"positions": torch.zeros(2).long()}, "sample: positions must be Int, got Long"),
        ({"positions": ints([1])}, "sample: positions must be logits.shape[:-1] = [2], got [1]"),
        ({"temperature": 0.0}, "sample: temperature must be positive and finite, got 0"),
        ({"temperature": 1e-60}, "sample: temperature must be positive and finite, got 1e-60"),
        ({"temperature": float("nan")}, "sample: temperature must be positive and finite, got nan"),
        ({"temperature": float("inf")}, "sample: temperature must be positive and finite, got inf"),
        ({"top_p": 0.0}, "sample: top_p must be above 0 and at most 1, got 0"),
        ({"top_p": 1.1}, "sample: top_p must be above 0 and at most 1, got 1.1"),
        ({"top_k": -1}, "sample: top_k must be from 0 to"),
    ],
)
def test_sample(bad: dict[str, Any], message: str) -> None:
    good = {"logits": torch.zeros(2, 5), "seeds": torch.zeros(2).long(), "positions": ints([0, 1])}
    check(ops.sample, good, bad, message)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"logits": torch.zeros(2, 40)}, "candidates: logits must be [B, K, V], got [2, 40]"),
        (
            {"logits": torch.zeros(2, 3, 40).double()},
            "candidates: logits must be Float, BFloat16 or Half, got Double",
        ),
        ({"logits": torch.zeros(2, 3, 0)}, "candidates: logits.shape[2] must be from 1 to"),
        ({"roots": ints([1])}, "candidates: roots must be [B] = [2], got [1]"),
        ({"depths": ints([[0, 1]])}, "candidates: depths must be [N], got [1, 2]"),
        ({"depths": ints([])}, "candidates: depths.shape[0] must be from 1 to 1024, got 0"),
        ({"depths": ints([0, 4])}, "candidates: depths must be from 0 to 3, got 4"),
        ({"ranks": ints([0])}, "candidates: ranks must be [N] = [2], got [1]"),
        ({"ranks": ints([0, 5])}, "candidates: ranks must be from 0 to 4, got 5"),
        ({"top_k": 0}, "candidates: top_k must be from 1 to 32, got 0"),
        ({"top_k": 33}, "candidates: top_k must be from 1 to 32, got 33"),
        ({"logits": torch.zeros(2, 3, 4)}, "candidates: top_k must be from 1 to 4, got 5"),
        ({"token_map": ints([1, 2])}, "candidates: token_map must be [V] = [40], got [2]"),
    ],
)
def test_candidates(bad: dict[str, Any], message: str) -> None:
    good = {
        "logits": torch.zeros(2, 3, 40),
        "roots": ints([1, 2]),
        "depths": ints([0, 1]),
        "ranks": ints([0, 4]),
        "top_k": 5,
    }
    check(ops.candidates, good, bad, message)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tokens": ints([1, 2])}, "accept: tokens must be [B, N], got [2]"),
        ({"tokens": torch.zeros(1, 2)}, "accept: tokens must be Int, got Float"),
        (
            {"tokens": torch.zeros(1, 0).int()},
            "accept: tokens.shape[1] must be from 1 to 1024, got 0",
        ),
        (
            {"tokens": torch.zeros(1, 1025).int()},
            "accept: tokens.shape[1] must be from 1 to 1024, got 1025",
        ),
        ({"targets": ints([[1]])}, "accept: targets must be [B, N] = [1, 2], got [1, 1]"),
        (
            {"parents": ints([[-1, 1]])},
            "accept: parents must be -1 or an earlier node, got 1 for node 1",
        ),
        (
            {"parents": ints([[0, 0]])},
            "accept: parents must be -1 or an earlier node, got 0 for node 0",
        ),
    ],
)
def test_accept(bad: dict[str, Any], message: str) -> None:
    good = {"tokens": ints([[1, 2]]), "targets": ints([[2, 3]]), "parents": ints([[-1, 0]])}
    check(ops.accept, good, bad, message)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"logits": torch.zeros(1, 2)}, "accept_typical: logits must be [B, N, V], got [1, 2]"),
        (
            {"logits": torch.zeros(1, 3, 9)},
            "accept_typical: tokens must be [B, N] = [1, 3], got [1, 2]",
        ),
        ({"tokens": ints([[1, 9]])}, "accept_typical: tokens must be from 0 to 8, got 9"),
        (
            {"parents": ints([[-1, 5]])},
            "accept_typical: parents must be -1 or an earlier node, got 5 for node 1",
        ),
        ({"seeds": torch.zeros(2).long()}, "accept_typical: seeds must be [B] = [1], got [2]"),
        ({"lengths": torch.zeros(1).long()}, "accept_typical: lengths must be Int, got Long"),
        ({"temperature": -1.0}, "accept_typical: temperature must be positive and finite, got -1"),
        ({"epsilon": 1.5}, "accept_typical: epsilon must be from 0 to 1, got 1.5"),
        ({"delta": -0.5}, "accept_typical: delta must be from 0 to 1, got -0.5"),
    ],
)
def test_accept_typical(bad: dict[str, Any], message: str) -> None:
    good = {
        "tokens": ints([[1, 2]]),
        "logits": torch.zeros(1, 2, 9),
        "parents": ints([[-1, 0]]),
        "seeds": torch.zeros(1).long(),
        "lengths": ints([4]),
    }
    check(ops.accept_typical, good, bad, message)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"caches": [torch.zeros(1, 2, 20)]},
            "compact: caches[0] must be [B, G, S, D], got [1, 2, 20]",
        ),
        (
            {"caches": [torch.zeros(1, 2, 20, 8), torch.zeros(2, 2, 20, 8)]},
            "compact: caches[1] must have B = 1 sequences, got [2, 2, 20, 8]",
        ),
        (
            {"caches": [torch.zeros(1, 1, 20, 8).expand(1, 2, 20, 8)]},
            "compact: caches[0] must not overlap itself, got strides",
        ),
        (
            {"caches": [torch.zeros(1, 2, 8, 20).transpose(2, 3)]},
            "compact: caches[0] must have contiguous rows, got strides",
        ),
        ({"length": ints([10, 11])}, "compact: length must be [B] = [1], got [2]"),
        (
            {"length": ints([16])},
            "compact: path must stay inside the 20 cache rows, got node 4 behind length 16",
        ),
        ({"length": ints([-1])}, "compact: length must be from 0 to 20, got -1"),
        ({"path": ints([0, 2, 4])}, "compact: path must be [B, P], got [3]"),
        ({"path": ints([[0, 2, 2]])}, "compact: path must hold ascending nodes, got 2 at [0, 2]"),
        ({"path": ints([[0, -1, 4]])}, "compact: path must hold ascending nodes, got -1 at [0, 1]"),
        ({"count": ints([4])}, "compact: count must be from 0 to 3, got 4"),
        ({"count": torch.zeros(1)}, "compact: count must be Int, got Float"),
    ],
)
def test_compact(bad: dict[str, Any], message: str) -> None:
    good = {
        "caches": [torch.zeros(1, 2, 20, 8)],
        "length": ints([10]),
        "path": ints([[0, 2, 4]]),
        "count": ints([3]),
    }
    check(ops.compact, good, bad, message)
