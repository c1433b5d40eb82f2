"""The paper's two figures from a GPU report: speed by model, and speed by the tree's size."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

_log = logging.getLogger("medusa_ext")


def plot(report: dict[str, Any], folder: Path) -> list[Path]:
    """Writes gpu_speed.png and gpu_tree_size.png; without matplotlib nothing, with a notice."""
    try:
        import matplotlib
    except ImportError:
        _log.warning("%s: no plots: they need matplotlib", folder)
        return []
    matplotlib.use("Agg", force=True)
    rows = report["decoding"]
    if not rows:
        return []
    title = f"{report['device']}, drafts replayed from published head accuracies"
    return [
        _plot_speed(rows, title, folder / "gpu_speed.png"),
        _plot_sizes(rows, title, folder / "gpu_tree_size.png"),
    ]


def _by_model(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    shortest = min(row["length"] for row in rows)
    models: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["length"] == shortest:
            models.setdefault(row["model"], []).append(row)
    return models


def _plot_speed(rows: list[dict[str, Any]], title: str, path: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for i, sizes in enumerate(_by_model(rows).values()):
        plain = next(row for row in sizes if row["num_nodes"] == 1)
        best = max(sizes, key=lambda row: float(row["tokens_per_second"]))
        for offset, row, label, color in (
            (-0.2, plain, "plain", "tab:gray"),
            (0.2, best, "Medusa, best tree", "tab:blue"),
        ):
            speed = row["tokens_per_second"]
            bars = axes.bar(i + offset, speed, 0.38, color=color, label=label if i == 0 else None)
            ratio = speed / plain["tokens_per_second"]
            axes.bar_label(bars, [f"{speed:.0f}\n{ratio:.2f}x"])
    axes.set_xticks(range(len(_by_model(rows))), list(_by_model(rows)))
    axes.set(title=title, ylabel="tokens per second")
    axes.margins(y=0.2)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _plot_sizes(rows: list[dict[str, Any]], title: str, path: Path) -> Path:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.5))
    for model, sizes in _by_model(rows).items():
        nodes = [row["num_nodes"] for row in sizes]
        plain = next(row for row in sizes if row["num_nodes"] == 1)
        left.plot(nodes, [row["tokens_per_step"] for row in sizes], marker="o", label=model)
        ratios = [row["tokens_per_second"] / plain["tokens_per_second"] for row in sizes]
        right.plot(nodes, ratios, marker="o", label=model)
    left.set(xlabel="nodes of the tree", ylabel="tokens per step")
    right.set(xlabel="nodes of the tree", ylabel="speed over plain decoding")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
