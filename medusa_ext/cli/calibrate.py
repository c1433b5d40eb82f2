"""`medusa-ext calibrate`: records how heads do in real decodes and keeps it with them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..checkpoints.names import DEFAULT_MODEL
from ..drafting.fixed import MAX_RANKS
from ..drafting.trees import MAX_NODES
from ..files import json_text
from .options import whole


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "calibrate",
        help="record rank traces of real decodes with the heads",
        description="Decodes prompts greedily, records which rank each head gave to the true "
        "tokens, and stores these traces with the heads: the best tree of every size follows from "
        "them. Prints accuracies by head and rank, and tokens per step by tree size, replayed from "
        "the traces and measured in real decoding.",
    )
    parser.add_argument("heads", type=Path, help="a directory with heads in our own format")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a name, directory or .gguf file")
    parser.add_argument("--prompts", type=Path, nargs="*", default=[], help="JSONL files")
    parser.add_argument(
        "--num-prompts", type=whole(1), default=96, help="synthesised, without files"
    )
    parser.add_argument("--max-new-tokens", type=whole(1), default=128)
    parser.add_argument("--ranks", type=whole(1, MAX_RANKS), default=16, help="ranks to record")
    parser.add_argument(
        "--nodes", type=whole(1, MAX_NODES), nargs="*", default=[4, 8, 16], help="sizes to measure"
    )
    parser.add_argument("--measure-prompts", type=whole(1), default=16)
    parser.add_argument("--dtype", default="auto", help="format of the base's weights")
    parser.add_argument("--batch", type=whole(1), default=32, help="sequences at a time")
    parser.add_argument("--seed", type=whole(0), default=1_000_003)
    parser.add_argument("--keep-loops", action="store_true", help="also what repeats itself")
    parser.add_argument("--threads", type=whole(1), help="CPU threads (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrates and prints what was found."""
    from .. import _C
    from ..training.calibration import CalibrationOptions, calibrate

    if args.threads is not None:
        _C.set_num_threads(args.threads)
    options = CalibrationOptions(
        model=args.model,
        prompts=tuple(args.prompts),
        num_prompts=args.num_prompts,
        max_new_tokens=args.max_new_tokens,
        num_ranks=args.ranks,
        sizes=tuple(args.nodes),
        measure_prompts=args.measure_prompts,
        dtype=args.dtype,
        batch=args.batch,
        seed=args.seed,
        keep_loops=args.keep_loops,
        progress=sys.stderr.isatty(),
    )
    report = calibrate(args.heads, options)
    print(json_text(report.to_json()) if args.json else report.table())
    return 0
