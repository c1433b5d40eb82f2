"""Static draft trees: which ranks of which heads become nodes of a step's tree."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .published import published_accuracies

if TYPE_CHECKING:
    from .. import _C

Path = tuple[int, ...]

MAX_NODES: Final = 1024  # as _C.MAX_NODES; trees are made without the native module


@dataclass(frozen=True, init=False)
class Tree:
    """An immutable tree of rank paths; the root (the step's first token) is implied.

    The path (c_1, ..., c_d) is the node at depth d that takes rank c_i of head i's guesses along
    the way. Nodes are ordered breadth first, by (depth, path). `num_nodes` counts the root.
    """

    paths: tuple[Path, ...]

    def __init__(self, paths: Iterable[Sequence[int]]) -> None:
        """Checks and orders the paths; no path at all is the root alone.

        Raises:
            TypeError: the paths are not a collection, or one is not a sequence of integers.
            ValueError: a path is empty, occurs twice, lacks its prefix or holds a negative rank,
                or there are more than 1024 nodes.
        """
        if not isinstance(paths, Iterable):
            raise TypeError(f"tree: needs a list of paths, got {paths!r}")
        ordered = sorted((_checked_path(path) for path in paths), key=lambda p: (len(p), p))
        if len(ordered) + 1 > MAX_NODES:
            raise ValueError(f"tree: needs at most {MAX_NODES} nodes, got {len(ordered) + 1}")
        known: set[Path] = {()}
        for path in ordered:
            if path in known:
                raise ValueError(f"tree: needs each path once, got {list(path)} twice")
            if path[:-1] not in known:
                raise ValueError(f"tree: path {list(path)} needs its prefix {list(path[:-1])}")
            known.add(path)
        object.__setattr__(self, "paths", tuple(ordered))

    @classmethod
    def from_parents(cls, parents: Sequence[int]) -> Tree:
        """The tree in which node i's parent is parents[i]; node 0 is the root, with parent -1.

        A node's rank is its order among its siblings. Raises ValueError if node 0 is not the root
        or a parent does not come before its child.
        """
        if not parents or parents[0] != -1:
            got = parents[0] if parents else "no nodes"
            raise ValueError(f"tree: parents need to start with -1 for the root, got {got}")
        paths: list[Path] = [()]
        children = [0] * len(parents)
        for node, parent in enumerate(parents[1:], start=1):
            if not 0 <= parent < node:
                need = f"a parent in 0 ... {node - 1}"
                raise ValueError(f"tree: node {node} needs {need}, got {parent}")
            paths.append((*paths[parent], children[parent]))
            children[parent] += 1
        return cls(paths[1:])

    @property
    def num_nodes(self) -> int:
        """Nodes, the root included."""
        return len(self.paths) + 1

    @cached_property
    def max_depth(self) -> int:
        """Depth of the deepest node: the heads that the tree needs."""
        return max((len(path) for path in self.paths), default=0)

    @cached_property
    def max_rank(self) -> int:
        """The largest rank used; 0 for the root alone."""
        return max((max(path) for path in self.paths), default=0)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """Each node's parent, -1 for the root."""
        index = {path: i for i, path in enumerate(self.paths, start=1)} | {(): 0}
        return (-1, *(index[path[:-1]] for path in self.paths))

    @cached_property
    def native(self) -> _C.TokenTree:
        """The native module's form of this tree."""
        from .. import _C

        return _C.TokenTree(self.parents, (0, *(path[-1] for path in self.paths)))

    def first(self, num_nodes: int) -> Tree:
        """The tree of this one's first `num_nodes` nodes in breadth-first order."""
        return Tree(self.paths[: max(num_nodes, 1) - 1])

    def __str__(self) -> str:
        from .picture import picture

        return picture(self)


def _checked_path(path: Any) -> Path:
    if isinstance(path, str) or not isinstance(path, Sequence):
        raise TypeError(f"tree: a path needs to be a list of ranks, got {path!r}")
    if not path:
        raise ValueError("tree: a path needs at least one rank (the root is implied), got []")
    for rank in path:
        if isinstance(rank, bool) or not isinstance(rank, int | np.integer):
            raise TypeError(f"tree: path {list(path)} needs integer ranks, got {rank!r}")
        if rank < 0:
            raise ValueError(f"tree: path {list(path)} needs ranks of at least 0, got {rank}")
    return tuple(int(rank) for rank in path)


@dataclass(frozen=True)
class NestedTrees:
    """One best tree per size: the tree of n nodes is `growth[:n - 1]`, each inside the next.

    `gains[i]` is the probability that node `growth[i]` is accepted, never increasing; so
    `expected_tokens(n)` is what a step with n nodes emits.
    """

    growth: tuple[Path, ...]
    gains: tuple[float, ...]

    @property
    def max_nodes(self) -> int:
        """Nodes of the largest tree."""
        return len(self.growth) + 1

    def tree(self, num_nodes: int) -> Tree:
        """The best tree of `num_nodes` nodes, or the largest there is."""
        return Tree(self.growth[: max(num_nodes, 1) - 1])

    def expected_tokens(self, num_nodes: int) -> float:
        """Tokens that a step with the tree of `num_nodes` nodes emits on average."""
        return 1.0 + sum(self.gains[: max(num_nodes, 1) - 1])


def nested_from_accuracies(
    accuracies: Sequence[Sequence[float]], max_nodes: int = 256
) -> NestedTrees:
    """The sparse trees of the Medusa paper (section 3.2.3).

    accuracies[i][r] is the probability that rank r of head i is the token. Grows by the node with
    the largest product along its path, which is best if the heads' successes are independent.
    """
    _check_accuracies(accuracies)
    ranked = [sorted(enumerate(row), key=lambda item: (-item[1], item[0])) for row in accuracies]

    def candidate(parent: Path, product: float, order: int) -> tuple[float, Path, float, int]:
        rank, accuracy = ranked[len(parent)][order]
        return (-product * accuracy, (*parent, rank), product, order)

    frontier = [candidate((), 1.0, 0)]
    growth: list[Path] = []
    gains: list[float] = []
    while frontier and len(growth) + 1 < max_nodes:
        negative, path, parent_product, order = heapq.heappop(frontier)
        if negative == 0.0:
            break
        growth.append(path)
        gains.append(-negative)
        depth = len(path)
        if order + 1 < len(ranked[depth - 1]):
            heapq.heappush(frontier, candidate(path[:-1], parent_product, order + 1))
        if depth < len(ranked):
            heapq.heappush(frontier, candidate(path, -negative, 0))
    return NestedTrees(tuple(growth), tuple(gains))


def _check_accuracies(accuracies: Sequence[Sequence[float]]) -> None:
    if not len(accuracies):
        raise ValueError("accuracies: needs one row per head, got none")
    for head, row in enumerate(accuracies):
        if not len(row):
            raise ValueError(f"accuracies: head {head} needs one number per rank, got none")
        for value in row:
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"accuracies: head {head} needs numbers in [0, 1], got {value}")


def nested_from_traces(traces: npt.NDArray[Any], max_nodes: int = 256) -> NestedTrees:
    """The trees that cover most of a calibration: for every size the best there is.

    traces [T, K]: the rank that head k gave the true continuation at each of T positions; negative
    where it was not among the ranks recorded. A node's gain is the share of positions whose ranks
    start with its path. A child never gains more than its parent, so taking the largest gain of
    the frontier is optimal for every size at once; children are counted when a parent is taken.
    """
    traces = np.asarray(traces)
    if traces.ndim != 2 or 0 in traces.shape or not np.issubdtype(traces.dtype, np.integer):
        raise ValueError(
            f"traces: needs integers [positions, heads], got {traces.dtype} {list(traces.shape)}"
        )
    total, num_heads = traces.shape
    frontier: list[tuple[int, int, Path, npt.NDArray[np.int64]]] = []

    def push_children(path: Path, rows: npt.NDArray[np.int64]) -> None:
        ranks = traces[rows, len(path)]
        known = ranks >= 0
        for rank in np.unique(ranks[known]).tolist():
            members = rows[ranks == rank]
            child = (*path, rank)
            heapq.heappush(frontier, (-len(members), len(child), child, members))

    push_children((), np.arange(total))
    growth: list[Path] = []
    gains: list[float] = []
    while frontier and len(growth) + 1 < max_nodes:
        count, depth, path, rows = heapq.heappop(frontier)
        growth.append(path)
        gains.append(-count / total)
        if depth < num_heads:
            push_children(path, rows)
    return NestedTrees(tuple(growth), tuple(gains))


def default_trees(num_heads: int) -> NestedTrees:
    """Sensible trees for heads without a calibration: those of Medusa's published accuracies."""
    return nested_from_accuracies(published_accuracies(num_heads))


def dense_tree(widths: Sequence[int]) -> Tree:
    """The Cartesian product of per-depth widths: every node at depth d - 1 has widths[d] children.

    Raises ValueError if a width is below 1 or the tree has more than 1024 nodes.
    """
    if any(width < 1 for width in widths):
        raise ValueError(f"widths: needs numbers of at least 1, got {list(widths)}")
    paths: list[Path] = []
    level: list[Path] = [()]
    for width in widths:
        if len(paths) + len(level) * width + 1 > MAX_NODES:
            raise ValueError(f"widths: {list(widths)} make more than {MAX_NODES} nodes")
        level = [(*path, rank) for path in level for rank in range(width)]
        paths += level
    return Tree(paths)


def random_dense_tree(max_nodes: int, max_depth: int, max_width: int, random: Random) -> Tree:
    """A dense tree of random widths with at most `max_nodes` nodes, as in the Medusa paper."""
    widths: list[int] = []
    nodes, level = 1, 1
    for _ in range(random.randint(1, max_depth)):
        room = min(max_width, (max_nodes - nodes) // level)
        if room < 1:
            break
        widths.append(random.randint(1, room))
        level *= widths[-1]
        nodes += level
    return dense_tree(widths)


def random_tree(num_nodes: int, max_depth: int, num_ranks: int, random: Random) -> Tree:
    """A random connected set of `num_nodes` nodes: each next one uniformly from the frontier.

    Fewer nodes where max_depth and num_ranks do not allow as many.
    """
    frontier: list[Path] = [(rank,) for rank in range(num_ranks)] if max_depth > 0 else []
    paths: list[Path] = []
    while frontier and len(paths) + 1 < num_nodes:
        chosen = random.randrange(len(frontier))
        frontier[chosen], frontier[-1] = frontier[-1], frontier[chosen]
        path = frontier.pop()
        paths.append(path)
        if len(path) < max_depth:
            frontier += [(*path, rank) for rank in range(num_ranks)]
    return Tree(paths)
