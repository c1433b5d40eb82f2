"""`medusa-ext tune`: measures what a step costs here, for tree="auto"."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from .options import add_model_options, load_model


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "tune",
        help="measure the cost of a step on this machine",
        description="Measures the seconds of a step by its tree's nodes and keeps them in the user "
        "cache, for --tree auto. Generating does the same by itself where it was never done.",
    )
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures and prints the curve."""
    model = load_model(args)

    def progress(sizes: Sequence[int]) -> Any:
        from tqdm import tqdm

        return tqdm(sizes, desc="measuring", unit="size", leave=False, file=sys.stderr)

    curve = model.cost_curve(remeasure=True, progress=progress)
    print(f"{'nodes':>6} {'ms/step':>9} {'pays from':>10}")
    for rows, seconds in zip(curve.rows, curve.seconds, strict=True):
        needed = (seconds + (curve.heads if rows > 1 else 0.0)) / curve.seconds[0]
        print(f"{rows:6} {seconds * 1e3:9.2f} {needed:10.2f}")
    if model.heads is not None:
        print(f"the heads add {curve.heads * 1e3:.2f} ms to a step")
    print("pays from: tokens per step above which a tree of so many nodes beats plain decoding")
    return 0
