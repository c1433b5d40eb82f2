"""The operators under torch.library.opcheck and torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops_cases import attention_inputs, ints
from torch._inductor.utils import run_and_get_code

from medusa_ext import ops


def compact_arguments() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    caches = [torch.randn(2, 2, 20, 8) for _ in range(4)]
    return caches, ints([10, 3]), ints([[0, 2, 4], [0, 1, -1]]), ints([3, 2])


def cases() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]:
    torch.manual_seed(0)
    tokens, parents = ints([[1, 2, 3]]), ints([[-1, 0, 1]])
    seeds = torch.tensor([5])
    return {
        "argmax": (ops.argmax, (torch.randn(3, 50),), {}),
        "sample": (
            ops.sample,
            (torch.randn(1, 50), seeds, ints([4])),
            {"temperature": 0.7, "top_p": 0.9, "top_k": 20},
        ),
        "candidates": (
            ops.candidates,
            (torch.randn(1, 3, 50), ints([1]), ints([0, 1, 2]), ints([0, 0, 4])),
            {"top_k": 5, "token_map": torch.arange(50, dtype=torch.int32)},
        ),
        "tree_attention": (
            ops.tree_attention,
            attention_inputs([10], [[-1, 0, 0]]).args(),
            {"scale": 0.2, "sliding_window": 6},
        ),
        "accept": (ops.accept, (tokens, ints([[2, 3, 9]]), parents), {}),
        "accept_typical": (
            ops.accept_typical,
            (tokens, torch.randn(1, 3, 50), parents, seeds, ints([7])),
            {"temperature": 0.8},
        ),
        "compact": (ops.compact, compact_arguments(), {}),
    }


@pytest.mark.parametrize("name", cases())
def test_opcheck(name: str) -> None:
    _, args, kwargs = cases()[name]
    torch.library.opcheck(getattr(torch.ops.medusa, name).default, args, kwargs)


def test_every_operator_is_covered() -> None:
    registered = {
        schema.name.split("::")[1]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("medusa::")
    }
    assert registered == set(cases())


@pytest.mark.parametrize("name", [name for name in cases() if name != "compact"])
def test_compiles_into_one_graph(name: str) -> None:
    function, args, kwargs = cases()[name]
    expected = function(*args, **kwargs)
    compiled = torch.compile(function, fullgraph=True)
    out, (code,) = run_and_get_code(compiled, *args, **kwargs)
    if isinstance(expected, torch.Tensor):
        expected, out = (expected,), (out,)
    for got, tensor in zip(out, expected, strict=True):
        assert torch.equal(got, tensor)
    assert "clone" not in code and "copy_" not in code


def test_compiled_operators_take_any_size() -> None:
    compiled = torch.compile(ops.argmax, fullgraph=True, dynamic=True)
    for shape in ((3, 50), (4, 51), (7, 1000)):
        logits = torch.randn(shape)
        assert torch.equal(compiled(logits), ops.argmax(logits))


def test_compiled_compact_copies_no_cache() -> None:
    """Caches go through functionalisation and come out changed in place, never as clones."""
    caches, *rest = compact_arguments()
    expected = [cache.clone() for cache in caches]
    expected_length = rest[0].clone()
    ops.compact(expected, expected_length, *rest[1:])

    def step(
        caches: list[torch.Tensor],
        length: torch.Tensor,
        path: torch.Tensor,
        count: torch.Tensor,
        q: torch.Tensor,
        parents: torch.Tensor,
    ) -> torch.Tensor:
        ops.compact(caches, length, path, count)
        return ops.tree_attention(q, caches[0], caches[1], length, parents)

    more = (torch.randn(2, 1, 4, 8), ints([[-1], [-1]]))
    pointers = [cache.data_ptr() for cache in caches]
    compiled: Any = torch.compile(step, fullgraph=True)
    out, (code,) = run_and_get_code(compiled, caches, *rest, *more)
    assert [cache.data_ptr() for cache in caches] == pointers
    for got, cache in zip(caches, expected, strict=True):
        assert torch.equal(got, cache)
    assert torch.equal(rest[0], expected_length)
    attended = ops.tree_attention(more[0], expected[0], expected[1], expected_length, more[1])
    assert torch.equal(out, attended)
    assert "clone" not in code and "copy_" not in code
    assert "(2, 2, 20, 8), (320, 160, 8, 1), torch.float32)" not in code  # no buffer of that size
