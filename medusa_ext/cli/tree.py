"""`medusa-ext tree`: makes, shows and saves trees."""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random
from typing import Any

from ..drafting.trees import (
    MAX_NODES,
    NestedTrees,
    Tree,
    default_trees,
    nested_from_traces,
    random_tree,
)
from ..files import json_text
from .options import read_tree, whole


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "tree",
        help="make, show and save draft trees",
        description="Shows the best tree of a size for given heads (without a calibration: for the "
        "accuracies that the Medusa paper's heads have), a random one, or one from a file.",
    )
    parser.add_argument("file", nargs="?", type=Path, help="a JSON file with a list of rank paths")
    parser.add_argument(
        "--nodes", type=whole(1, MAX_NODES), default=16, help="nodes, the root included"
    )
    parser.add_argument("--depth", type=whole(1), default=4, help="heads, where none are named")
    parser.add_argument(
        "--heads", help="heads whose calibration decides: a path or a packaged name"
    )
    parser.add_argument("--random", type=int, metavar="SEED", help="a random tree instead")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.add_argument(
        "--out", type=Path, help="save instead of showing: .json (rank paths), .svg, .png or .txt"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Shows or saves the tree."""
    from ..drafting.picture import picture, save

    expected = []
    if args.file is not None:
        tree = read_tree(args.file)
    elif args.random is not None:
        tree = random_tree(args.nodes, args.depth, 10, Random(args.random))
    else:
        trees, calibrated = _trees(args)
        tree = trees.tree(args.nodes)
        origin = "in its calibration" if calibrated else "at the Medusa paper's accuracies"
        expected = [f"{trees.expected_tokens(args.nodes):.2f} tokens per step {origin}"]
    if args.out is None:
        print(picture(tree, args.ascii))
        facts = [f"{tree.num_nodes} nodes", f"depth {tree.max_depth}", *expected]
        print(", ".join(facts))
    elif args.out.suffix == ".json":
        args.out.write_text(_json(tree), encoding="utf-8")
    else:
        save(tree, args.out)
    return 0


def _trees(args: argparse.Namespace) -> tuple[NestedTrees, bool]:
    if args.heads is None:
        return default_trees(args.depth), False
    from ..checkpoints.heads.load import load_heads
    from ..checkpoints.heads.resolve import heads_without_base

    checkpoint = load_heads(heads_without_base(args.heads))
    if checkpoint.rank_traces is None:
        return default_trees(checkpoint.num_heads), False
    return nested_from_traces(checkpoint.rank_traces.numpy()), True


def _json(tree: Tree) -> str:
    return json_text([list(path) for path in tree.paths]) + "\n"
