"""Pictures of a training run, from its metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def plot_metrics(metrics: Path) -> list[Path]:
    """Writes loss.png, accuracy.png and tokens_per_step.png beside the metrics."""
    import matplotlib

    matplotlib.use("Agg", force=True)
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if line.get("evaluation")]
    written = []
    if steps:
        written.append(_plot_loss(metrics.parent / "loss.png", steps))
    if evaluations:
        last = evaluations[-1]["evaluation"]
        written.append(_plot_accuracy(metrics.parent / "accuracy.png", last["top"]))
        written.append(_plot_sizes(metrics.parent / "tokens_per_step.png", last["tokens_per_step"]))
    return written


def _figure(title: str, x: str, y: str) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _plot_loss(path: Path, steps: list[dict[str, Any]]) -> Path:
    figure, axes = _figure("Training loss", "step", "cross-entropy")
    heads = [name for name in steps[0] if name.startswith("loss_")]
    for name in heads:
        label = f"head {int(name.removeprefix('loss_')) + 1}"
        axes.plot([s["step"] for s in steps], [s[name] for s in steps], label=label)
    axes.legend()
    return _save(figure, path)


def _plot_accuracy(path: Path, top: list[list[float]]) -> Path:
    figure, axes = _figure("Held-out accuracy", "guesses", "share of tokens")
    for k, row in enumerate(top):
        axes.plot(range(1, len(row) + 1), row, marker="o", label=f"head {k + 1}")
    axes.set_ylim(0, 1)
    axes.legend()
    return _save(figure, path)


def _plot_sizes(path: Path, sizes: dict[str, float]) -> Path:
    figure, axes = _figure("Held-out tokens per step, replayed", "nodes of the tree", "tokens")
    axes.plot([int(n) for n in sizes], list(sizes.values()), marker="o")
    axes.set_xscale("log", base=2)
    return _save(figure, path)
