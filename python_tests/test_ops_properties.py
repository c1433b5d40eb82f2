"""Trees, acceptance and compaction against slow oracles, on inputs hypothesis makes."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_cases import attention_inputs, ints

from medusa_ext import ops
from medusa_ext.ops import reference


@st.composite
def forests(draw: st.DrawFn, max_nodes: int = 40) -> list[int]:
    """Parents of up to max_nodes nodes; -1 after node 0 is padding."""
    size = draw(st.integers(1, max_nodes))
    return [-1, *(draw(st.integers(-1, n - 1)) for n in range(1, size))]


def slow_walk(tokens: list[int], targets: list[int], parents: list[int]) -> list[int]:
    """Acceptance by its definition: the longest root path that follows the targets, first in
    node order at every step."""
    node, path = 0, [0]
    while True:
        children = [n for n, p in enumerate(parents) if p == node and tokens[n] == targets[node]]
        if not children:
            return path
        node = min(children)
        path.append(node)


@settings(max_examples=150, deadline=None)
@given(st.data(), forests())
def test_accept_walks_the_targets(data: st.DataObject, parents: list[int]) -> None:
    size = len(parents)
    token = st.lists(st.integers(0, 2), min_size=size, max_size=size)
    tokens, targets = data.draw(token), data.draw(token)
    out = ops.accept(ints([tokens]), ints([targets]), ints([parents]))
    path = slow_walk(tokens, targets, parents)
    assert out.count.tolist() == [len(path)]
    assert out.path[0].tolist() == path + [-1] * (size - len(path))
    assert out.next_root.tolist() == [targets[path[-1]]]


@settings(max_examples=40, deadline=None)
@given(forests(12), st.integers(0, 140), st.integers(0, 70), st.integers(0, 1 << 30))
def test_a_node_sees_its_own_path_alone(
    parents: list[int], length: int, sliding_window: int, seed: int
) -> None:
    """Bit for bit: every node of a tree, and the last row of the chain that is its path."""
    inputs = attention_inputs([length], [parents], head_size=16, seed=seed)
    out = ops.tree_attention(*inputs.args(), sliding_window=sliding_window)
    for node in range(len(parents)):
        path = reference.node_path(parents, node)
        rows = torch.tensor([*range(length), *(length + n for n in path)])
        alone = ops.tree_attention(
            inputs.q[:, node : node + 1],
            inputs.k_cache[:, :, rows].contiguous(),
            inputs.v_cache[:, :, rows].contiguous(),
            ints([length + len(path) - 1]),
            ints([[-1]]),
            sliding_window=sliding_window,
        )
        assert torch.equal(alone[:, 0], out[:, node])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_compact_keeps_exactly_the_path(data: st.DataObject) -> None:
    num_rows, sequences = 24, data.draw(st.integers(1, 3))
    lengths, paths = [], []
    for _ in range(sequences):
        length = data.draw(st.integers(0, num_rows))
        nodes = data.draw(st.sets(st.integers(0, max(0, num_rows - length - 1)), max_size=6))
        lengths.append(length)
        paths.append(sorted(nodes) if length < num_rows else [])
    rows = torch.arange(num_rows, dtype=torch.int32).reshape(1, 1, -1, 1)
    cache = rows.repeat(sequences, 2, 1, 3)
    expected = [list(range(num_rows)) for _ in range(sequences)]
    for row, length, path in zip(expected, lengths, paths, strict=True):
        row[length : length + len(path)] = [length + n for n in path]
    count = [len(path) for path in paths]
    advanced = ints(lengths)
    padded = ints([path + [-1] * (6 - len(path)) for path in paths])
    ops.compact([cache], advanced, padded, ints(count))
    assert cache[:, 1, :, 2].tolist() == expected
    assert advanced.tolist() == [a + b for a, b in zip(lengths, count, strict=True)]


@settings(max_examples=100, deadline=None)
@given(forests(20), st.integers(0, 1 << 30))
def test_candidates_then_accept_find_what_was_planted(parents: list[int], seed: int) -> None:
    """A tree of ranks whose drafts are the model's own continuation is accepted to its end."""
    generator = torch.Generator().manual_seed(seed)
    parents = [-1, *(max(p, 0) for p in parents[1:])]
    depths = [len(reference.node_path(parents, n)) - 1 for n in range(len(parents))]
    ranks = [parents[:n].count(p) for n, p in enumerate(parents)]
    logits = torch.randn(1, max(1, *depths), 30, generator=generator)
    tokens = ops.candidates(logits, ints([3]), ints(depths), ints(ranks), top_k=20).tokens
    deepest = max(range(len(parents)), key=lambda n: (depths[n], -n))
    planted = reference.node_path(parents, deepest)
    targets = torch.full_like(tokens, -5)
    for parent, node in pairwise(planted):
        targets[0, parent] = tokens[0, node]
    out = ops.accept(tokens, targets, ints([parents]))
    assert int(out.count) == len(planted)
    assert out.path[0, : len(planted)].tolist() == planted
