"""Pictures of a tree: text, SVG, and PNG through matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ..extras import require

_STEP_X, _STEP_Y, _RADIUS, _MARGIN = 22, 60, 8, 20


class Drawable(Protocol):
    """What a picture needs of a tree: see `trees.Tree`."""

    @property
    def paths(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def parents(self) -> tuple[int, ...]: ...
    @property
    def num_nodes(self) -> int: ...
    @property
    def max_depth(self) -> int: ...


def _children(tree: Drawable) -> list[list[int]]:
    children: list[list[int]] = [[] for _ in range(tree.num_nodes)]
    for node, parent in enumerate(tree.parents[1:], start=1):
        children[parent].append(node)
    return children


def picture(tree: Drawable, ascii_only: bool = False) -> str:
    """The tree as text, one node a line; a node shows its rank."""
    branch, last, through = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")
    children = _children(tree)
    lines = ["root"]
    waiting = [(node, "") for node in reversed(children[0])]
    while waiting:
        node, indent = waiting.pop()
        is_last = children[tree.parents[node]][-1] == node
        lines.append(indent + (last if is_last else branch) + str(tree.paths[node - 1][-1]))
        deeper = indent + ("   " if is_last else through)
        waiting += [(child, deeper) for child in reversed(children[node])]
    return "\n".join(lines)


def _layout(tree: Drawable) -> list[tuple[float, int]]:
    """(x, depth) of each node: leaves side by side, a parent in the middle of its children."""
    children = _children(tree)
    places: list[tuple[float, int]] = [(0.0, 0)] * tree.num_nodes
    next_leaf = 0
    waiting = [(0, False)]
    while waiting:
        node, expanded = waiting.pop()
        depth = len(tree.paths[node - 1]) if node else 0
        if children[node] and not expanded:
            waiting += [(node, True), *((child, False) for child in reversed(children[node]))]
        elif children[node]:
            first, final = children[node][0], children[node][-1]
            places[node] = ((places[first][0] + places[final][0]) / 2, depth)
        else:
            places[node] = (float(next_leaf), depth)
            next_leaf += 1
    return places


def svg(tree: Drawable) -> str:
    """The tree as an SVG document; a node shows its rank."""
    spots = [(_MARGIN + x * _STEP_X, _MARGIN + depth * _STEP_Y) for x, depth in _layout(tree)]
    width = max(x for x, _ in spots) + _MARGIN
    height = max(y for _, y in spots) + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        'font-family="sans-serif" font-size="9" text-anchor="middle">'
    ]
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            (x1, y1), (x2, y2) = spots[parent], spots[node]
            parts.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="#888"/>')
    for node, (x, y) in enumerate(spots):
        label = str(tree.paths[node - 1][-1]) if node else ""
        fill = "#cde" if node else "#234"
        parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{_RADIUS}" fill="{fill}"/>')
        parts.append(f'<text x="{x:g}" y="{y + 3:g}">{label}</text>')
    return "\n".join([*parts, "</svg>\n"])


def save(tree: Drawable, path: str | Path) -> None:
    """Writes the tree's picture; the suffix chooses: .svg, .png (needs matplotlib) or .txt.

    Raises ValueError for another suffix, ImportError if matplotlib is missing.
    """
    path = Path(path)
    if path.suffix == ".svg":
        path.write_text(svg(tree), encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text(picture(tree) + "\n", encoding="utf-8")
    elif path.suffix == ".png":
        _save_png(tree, path)
    else:
        raise ValueError(f"{path}: a tree's picture needs to end in .svg, .png or .txt")


def _save_png(tree: Drawable, path: Path) -> None:
    require("matplotlib", f"{path}: a PNG (unlike .svg)")
    from matplotlib.figure import Figure

    places = _layout(tree)
    width = max(x for x, _ in places) + 1
    figure: Any = Figure(figsize=(max(3.0, width * 0.25), 1.2 + tree.max_depth * 0.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            (x1, y1), (x2, y2) = places[parent], places[node]
            axes.plot([x1, x2], [-y1, -y2], color="0.5", linewidth=0.8, zorder=1)
    axes.scatter([x for x, _ in places], [-y for _, y in places], s=90, color="#cde", zorder=2)
    for node, (x, y) in enumerate(places):
        label = str(tree.paths[node - 1][-1]) if node else ""
        axes.text(x, -y, label, ha="center", va="center", fontsize=6, zorder=3)
    figure.savefig(path, dpi=150)
