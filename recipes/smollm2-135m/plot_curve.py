"""Tokens per step against the answer tokens that heads learned from: a table and a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SIZES = (4, 8, 16, 32, 64)
SET = "all, without loops"


def read(evaluation: Path, metrics: Path) -> tuple[int, dict[int, float], dict[int, float]]:
    """(answer tokens of a run, tokens per step by N of its heads alone, the same with lookup)."""
    first = json.loads(metrics.read_text(encoding="utf-8").splitlines()[0])
    report = json.loads(evaluation.read_text(encoding="utf-8"))
    rows = next(value for key, value in report.items() if key.endswith(SET))
    alone, beside = (
        {int(n): float(value) for n, value in rows[name].items()} for name in list(rows)[:2]
    )
    return int(first["answer_tokens"]), alone, beside


def draw(points: list[tuple[int, dict[int, float], dict[int, float]]], out: Path) -> None:
    """The curve for every N, with lookup dashed."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "learning curve"  # the same file each time
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.4, 4))
    tokens = [point[0] for point in points]
    for number, n in enumerate(SIZES):
        color = f"C{number}"
        axes.plot(tokens, [p[1][n] for p in points], "o-", color=color, label=f"N = {n}")
        axes.plot(tokens, [p[2][n] for p in points], "o--", color=color, lw=1, ms=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(tokens, [f"{count / 1e6:.2f} M" for count in tokens])
    axes.set_xlabel("answer tokens")
    axes.set_ylabel("tokens per step")
    axes.grid(alpha=0.3)
    axes.legend(title="dashed: with lookup", fontsize=8, title_fontsize=8, bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="evaluation.json metrics.jsonl, ...")
    parser.add_argument("--out", type=Path, required=True, help=".svg or .png")
    args = parser.parse_args()
    pairs = zip(args.files[::2], args.files[1::2], strict=True)
    points = sorted((read(*pair) for pair in pairs), key=lambda point: point[0])
    print(f"| answer tokens | {' | '.join(f'N = {n}' for n in SIZES)} |")
    print("|---" * (len(SIZES) + 1) + "|")
    for tokens, alone, beside in points:
        cells = [f"{alone[n]:.2f} ({beside[n]:.2f})" for n in SIZES]
        print(f"| {tokens / 1e6:.2f} M | {' | '.join(cells)} |")
    draw(points, args.out)


if __name__ == "__main__":
    main()
