"""Trees: what they accept, which nodes they choose, how they are drawn."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_ext import _C
from medusa_ext.drafting.fixed import MAX_RANKS
from medusa_ext.drafting.picture import picture, save, svg
from medusa_ext.drafting.trees import (
    MAX_NODES,
    Tree,
    default_trees,
    dense_tree,
    nested_from_accuracies,
    nested_from_traces,
    random_dense_tree,
    random_tree,
)


def test_orders_breadth_first() -> None:
    tree = Tree([[1], [0, 1], [0], [0, 0], [0, 0, 2]])
    assert tree.paths == ((0,), (1,), (0, 0), (0, 1), (0, 0, 2))
    assert tree.parents == (-1, 0, 0, 1, 1, 3)
    assert (tree.num_nodes, tree.max_depth, tree.max_rank) == (6, 3, 2)


def test_root_alone() -> None:
    tree = Tree([])
    assert (tree.num_nodes, tree.max_depth, tree.max_rank, tree.parents) == (1, 0, 0, (-1,))


@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        ([[0], [1, 0]], ValueError, r"path \[1, 0\] needs its prefix \[1\]"),
        ([[0], [0]], ValueError, r"each path once, got \[0\] twice"),
        ([[]], ValueError, "at least one rank"),
        ([[-1]], ValueError, "ranks of at least 0, got -1"),
        ([[0.5]], TypeError, "integer ranks, got 0.5"),
        ([[True]], TypeError, "integer ranks, got True"),
        (["0"], TypeError, "list of ranks, got '0'"),
        ([0], TypeError, "list of ranks, got 0"),
        ([[i] for i in range(1024)], ValueError, "at most 1024 nodes, got 1025"),
    ],
)
def test_rejects(paths: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Tree(paths)


def test_from_parents_round_trip() -> None:
    tree = random_tree(40, 4, 3, Random(1))
    gapless = Tree.from_parents(tree.parents)
    assert gapless.parents == Tree.from_parents(gapless.parents).parents
    assert gapless.num_nodes == tree.num_nodes
    with pytest.raises(ValueError, match=r"node 1 needs a parent in 0 \.\.\. 0, got 2"):
        Tree.from_parents([-1, 2, 0])
    with pytest.raises(ValueError, match="start with -1"):
        Tree.from_parents([0])


def test_native_form_has_the_same_nodes() -> None:
    tree = Tree([[0], [1], [0, 0], [0, 2], [1, 0], [0, 0, 1]])
    assert tuple(tree.native.parents) == tree.parents
    assert tree.native.ranks == [0, 0, 1, 0, 2, 0, 1]
    assert tree.native.max_depth == tree.max_depth
    assert tree.native.depth_offsets == [0, 1, 3, 6, 7]


def test_limits_are_those_of_the_native_module() -> None:
    assert (MAX_NODES, MAX_RANKS) == (_C.MAX_NODES, _C.MAX_HEAD_RANKS)


def best_by_force(accuracies: list[list[float]], num_nodes: int) -> float:
    """The largest expected tokens of any tree, by trying all connected sets."""
    depth, ranks = len(accuracies), len(accuracies[0])
    nodes = [p for d in range(1, depth + 1) for p in itertools.product(range(ranks), repeat=d)]
    best = 0.0
    for chosen in itertools.combinations(nodes, num_nodes - 1):
        if all(len(p) == 1 or p[:-1] in chosen for p in chosen):
            gains = (np.prod([accuracies[i][r] for i, r in enumerate(p)]) for p in chosen)
            best = max(best, 1.0 + float(sum(gains)))
    return best


def test_accuracies_give_the_best_tree() -> None:
    accuracies = [[0.3, 0.5], [0.6, 0.2]]
    nested = nested_from_accuracies(accuracies)
    for size in range(1, 7):
        assert nested.tree(size).num_nodes == size
        assert nested.expected_tokens(size) == pytest.approx(best_by_force(accuracies, size))
    # Rank 1 is the likelier one here: taken first, whatever its number.
    assert nested.tree(2).paths == ((1,),)


def covered(tree: Tree, traces: np.ndarray) -> float:
    """Tokens per step of a tree over traces, walked one by one."""
    total = 0
    for trace in traces.tolist():
        depth = 0
        while depth < len(trace) and tuple(trace[: depth + 1]) in tree.paths:
            depth += 1
        total += 1 + depth
    return total / len(traces)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 30))
def test_traces_give_the_best_tree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    traces = rng.integers(-1, 3, (30, 2))
    nested = nested_from_traces(traces)
    for size in (1, 2, 3, 4):
        tree = nested.tree(size)
        assert nested.expected_tokens(size) == pytest.approx(covered(tree, traces))
        nodes = [p for d in (1, 2) for p in itertools.product(range(3), repeat=d)]
        trees = (
            Tree(chosen)
            for chosen in itertools.combinations(nodes, size - 1)
            if all(len(p) == 1 or p[:-1] in chosen for p in chosen)
        )
        assert covered(tree, traces) == pytest.approx(max(covered(t, traces) for t in trees))
    sizes = range(1, nested.max_nodes)
    assert all(set(nested.tree(n).paths) <= set(nested.tree(n + 1).paths) for n in sizes)


def test_traces_are_checked() -> None:
    with pytest.raises(ValueError, match=r"integers \[positions, heads\], got float64"):
        nested_from_traces(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"got int64 \[0, 2\]"):
        nested_from_traces(np.zeros((0, 2), dtype=np.int64))


def test_accuracies_are_checked() -> None:
    with pytest.raises(ValueError, match="one row per head"):
        nested_from_accuracies([])
    with pytest.raises(ValueError, match=r"head 1 needs numbers in \[0, 1\], got 1.5"):
        nested_from_accuracies([[0.5], [1.5]])


def test_default_trees_fit_the_heads() -> None:
    for heads in (1, 2, 4, 7):
        nested = default_trees(heads)
        for size in (1, 2, 8, 64):
            tree = nested.tree(size)
            assert tree.max_depth <= heads and tree.max_rank < 10
            assert tree.num_nodes == min(size, nested.max_nodes)
    assert default_trees(4).tree(4).paths == ((0,), (1,), (0, 0))


def test_dense_tree() -> None:
    assert dense_tree([2, 1]).paths == ((0,), (1,), (0, 0), (1, 0))
    with pytest.raises(ValueError, match="at least 1, got"):
        dense_tree([2, 0])
    with pytest.raises(ValueError, match="more than 1024 nodes"):
        dense_tree([10, 10, 10])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 250), st.integers(0, 1 << 30))
def test_random_trees_keep_their_bounds(num_nodes: int, seed: int) -> None:
    dense = random_dense_tree(num_nodes, 4, 10, Random(seed))
    assert dense.num_nodes <= num_nodes and dense.max_depth <= 4 and dense.max_rank < 10
    tree = random_tree(num_nodes, 4, 10, Random(seed))
    assert tree.num_nodes == num_nodes and tree.max_depth <= 4 and tree.max_rank < 10
    assert random_tree(num_nodes, 4, 10, Random(seed)) == tree


def test_random_tree_stops_where_there_is_no_room() -> None:
    assert random_tree(100, 2, 2, Random(0)).num_nodes == 1 + 2 + 4


def test_picture() -> None:
    tree = Tree([[0], [2], [0, 1], [0, 3]])
    assert picture(tree, ascii_only=True) == "root\n|- 0\n|  |- 1\n|  `- 3\n`- 2"
    assert str(tree).splitlines()[1] == "├─ 0"


def test_plots_are_files_of_their_kind(tmp_path: Path) -> None:
    tree = default_trees(3).tree(12)
    document = ElementTree.fromstring(svg(tree))
    circles = [element for element in document.iter() if element.tag.endswith("circle")]
    assert len(circles) == tree.num_nodes
    places = {(circle.get("cx"), circle.get("cy")) for circle in circles}
    assert len(places) == tree.num_nodes
    for name in ("tree.svg", "tree.txt"):
        save(tree, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 50
    with pytest.raises(ValueError, match=r"end in \.svg, \.png or \.txt"):
        save(tree, tmp_path / "tree.gif")


def test_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save(default_trees(3).tree(12), tmp_path / "tree.png")
    assert (tmp_path / "tree.png").read_bytes().startswith(b"\x89PNG")


def test_paths_survive_json() -> None:
    tree = default_trees(4).tree(32)
    assert Tree(json.loads(json.dumps(tree.paths))) == tree


@pytest.mark.parametrize("paths", [5, None])
def test_a_tree_is_a_collection_of_paths(paths: Any) -> None:
    with pytest.raises(TypeError, match=f"tree: needs a list of paths, got {paths}"):
        Tree(paths)
