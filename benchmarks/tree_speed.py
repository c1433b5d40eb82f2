"""Speed against the number of candidate tokens, for random and for optimised trees (the Medusa
paper's figure on trees), with measured times and replayed acceptance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from medusa_ext import _C
from medusa_ext.drafting.published import NUM_HEADS, published_accuracies
from medusa_ext.drafting.trees import (
    NestedTrees,
    Tree,
    nested_from_accuracies,
    nested_from_traces,
    random_dense_tree,
    random_tree,
)
from medusa_ext.engine.model import Model
from medusa_ext.engine.step import run_step

from .rows import seconds_of

_CONTEXT: Final = 128
_RANKS: Final = 10
_SPARSE: Final = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Acceptance:
    """How many tokens a step with a tree emits, by what the heads got right elsewhere.

    `traces` [T, K]: ranks of the true continuation; else `table` [K][ranks]: the probability that
    a rank is the token, heads taken to be independent. `source` says which.
    """

    source: str
    trees: NestedTrees
    num_heads: int
    traces: npt.NDArray[Any] | None = None
    table: Sequence[Sequence[float]] = ()

    @staticmethod
    def of_traces(traces: npt.NDArray[Any]) -> Acceptance:
        """Replays the ranks recorded when the heads were calibrated."""
        return Acceptance(
            "replay of the heads' calibration",
            nested_from_traces(traces),
            int(traces.shape[1]),
            traces=traces,
        )

    @staticmethod
    def published(num_heads: int) -> Acceptance:
        """Replays the accuracies published for Medusa heads of Vicuna-7B."""
        table = published_accuracies(num_heads)
        source = "replay of the accuracies published for Medusa heads of Vicuna-7B"
        return Acceptance(source, nested_from_accuracies(table), num_heads, table=table)

    def expected_tokens(self, tree: Tree) -> float:
        """Tokens that a step with this tree emits on average; the root is always one."""
        if self.traces is None:
            gains = [self._product(path) for path in tree.paths]
            return 1.0 + sum(gains)
        hits = 0
        for path in tree.paths:
            hits += int((self.traces[:, : len(path)] == np.asarray(path)).all(axis=1).sum())
        return 1.0 + hits / len(self.traces)

    def _product(self, path: Sequence[int]) -> float:
        product = 1.0
        for head, rank in enumerate(path):
            product *= self.table[head][rank] if rank < len(self.table[head]) else 0.0
        return product


@dataclass(frozen=True)
class Point:
    """One tree: `step_seconds` of a whole step, heads included."""

    kind: str
    num_nodes: int
    max_depth: int
    step_seconds: float
    tokens_per_step: float

    @property
    def tokens_per_second(self) -> float:
        """At the replayed acceptance."""
        return self.tokens_per_step / self.step_seconds


@dataclass(frozen=True)
class TreeSpeeds:
    """All trees of one model; `acceptance` says where the tokens per step are from."""

    model: str
    formats: list[str]
    threads: int
    acceptance: str
    plain_tokens_per_second: float
    points: list[Point]

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        points = [
            {**vars(point), "tokens_per_second": point.tokens_per_second} for point in self.points
        ]
        return {**vars(self), "points": points}

    def table(self) -> str:
        """The optimised trees and the best random ones as text."""
        plain = self.plain_tokens_per_second
        lines = [
            f"acceptance: {self.acceptance}",
            f"{'tree':18} {'nodes':>6} {'ms/step':>8} {'tokens/step':>12} {'tokens/s':>9} {'':>7}",
            f"{'plain':18} {1:6} {1e3 / plain:8.2f} {1:12.2f} {plain:9.1f} {'1.00x':>7}",
        ]
        best = {
            kind: max(
                (point for point in self.points if point.kind == kind),
                key=lambda point: point.tokens_per_second,
            )
            for kind in dict.fromkeys(point.kind for point in self.points)
        }
        for point in self.points:
            if point.kind != "optimised sparse" and point is not best[point.kind]:
                continue
            label = point.kind if point.kind == "optimised sparse" else f"best {point.kind}"
            speed = point.tokens_per_second
            lines.append(
                f"{label:18.18} {point.num_nodes:6} {1e3 * point.step_seconds:8.2f} "
                f"{point.tokens_per_step:12.2f} {speed:9.1f} {speed / plain:6.2f}x"
            )
        return "\n".join(lines)


def measure_trees(
    model: Model,
    traces: npt.NDArray[Any] | None = None,
    *,
    num_random: int = 40,
    repeats: int = 5,
    max_nodes: int = 256,
) -> TreeSpeeds:
    """Times a step of every tree, in turns; `traces` are the heads' calibration, if they have one.

    A model without heads replays published accuracies and its steps lack the heads' own time.
    """
    num_heads = model.heads.num_heads if model.heads is not None else NUM_HEADS
    acceptance = Acceptance.published(num_heads) if traces is None else Acceptance.of_traces(traces)
    if model.heads is None:
        note = f"{acceptance.source}; without the time of heads, of which the model has none"
    else:
        note = acceptance.source
    trees = _trees(acceptance, num_random, max_nodes)
    session = _C.Session(
        model.native, 1, _CONTEXT + 2 * max_nodes, max(max_nodes, 2), model.kv_dtype
    )
    text = np.random.default_rng(0).integers(0, model.config.vocab_size, _CONTEXT, dtype=np.int32)
    session.prefill(0, text)
    times: list[list[float]] = [[] for _ in trees]
    plain: list[float] = []
    for _ in range(repeats):
        for i, (_, tree) in enumerate(trees):
            times[i].append(_step(session, model, tree))
        plain += [_step(session, model, Tree([])) for _ in range(3)]
    points = [
        Point(
            kind,
            tree.num_nodes,
            tree.max_depth,
            median(taken),
            acceptance.expected_tokens(tree),
        )
        for (kind, tree), taken in zip(trees, times, strict=True)
    ]
    formats = sorted(set(model.native.formats.values()))
    speed = 1 / median(plain)
    return TreeSpeeds(model.name, formats, _C.num_threads(), note, speed, points)


def _trees(acceptance: Acceptance, num_random: int, max_nodes: int) -> list[tuple[str, Tree]]:
    random = Random(0)
    depth = acceptance.num_heads
    sizes = [max(2, round(max_nodes * (i + 1) / num_random)) for i in range(num_random)]
    found = [("random dense", random_dense_tree(n, depth, _RANKS, random)) for n in sizes]
    found += [("random connected", random_tree(n, depth, _RANKS, random)) for n in sizes]
    sparse = sorted({min(size, max_nodes, acceptance.trees.max_nodes) for size in _SPARSE})
    return found + [("optimised sparse", acceptance.trees.tree(size)) for size in sparse]


def _step(session: _C.Session, model: Model, tree: Tree) -> float:
    """Seconds of a step with this tree, after the first `_CONTEXT` tokens of the text."""
    text = session.text(0)[:_CONTEXT]
    # Computed again, the last token leaves the hidden state that the heads start from.
    session.truncate(0, _CONTEXT - 1)
    session.prefill(0, np.ascontiguousarray(text[-1:]))
    parents = np.asarray(tree.parents, dtype=np.int32)
    tokens = np.arange(tree.num_nodes, dtype=np.int32) + 1
    tokens[0] = session.roots[0]
    heads = model.heads

    def propose() -> bool:
        if heads is not None and tree.num_nodes > 1:
            session.draft_heads(heads, tree.native)
        else:
            session.set_tree(0, tokens, parents)
        return tree.num_nodes > 1

    return seconds_of(lambda: run_step(session, propose))


def draw(found: TreeSpeeds, path: Path) -> None:
    """The figure, as PNG or SVG by the path's suffix. Raises ModuleNotFoundError without
    matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    styles: dict[str, dict[str, Any]] = {
        "random dense": {"s": 12, "alpha": 0.5},
        "random connected": {"s": 12, "alpha": 0.5, "marker": "x"},
        "optimised sparse": {"s": 36, "marker": "*"},
    }
    for kind, style in styles.items():
        points = [point for point in found.points if point.kind == kind]
        axes.scatter(
            [point.num_nodes - 1 for point in points],
            [point.tokens_per_second for point in points],
            label=kind,
            **style,
        )
    axes.axhline(found.plain_tokens_per_second, color="gray", lw=1, ls="--", label="plain")
    axes.set_xlabel("candidate tokens")
    axes.set_ylabel("tokens/s")
    axes.set_ylim(bottom=0)
    title = f"{Path(found.model).stem}, {'+'.join(found.formats)}, {found.threads} threads"
    axes.set_title(f"{title}\nacceptance: {found.acceptance}", fontsize=8)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def calibration_of(model: Model, heads: str | Path | None) -> npt.NDArray[Any] | None:
    """The rank traces of the heads that `model` was loaded with, if they bring some."""
    if model.heads is None:
        return None
    from medusa_ext.checkpoints import load_heads, open_source, resolve_heads, resolve_model

    path = resolve_heads(heads, open_source(resolve_model(model.name)))
    traces = load_heads(path).rank_traces if path is not None else None
    return None if traces is None else traces.numpy()
