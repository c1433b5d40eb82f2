"""`medusa-ext bench`: tokens per second on this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .options import add_model_options, load_model, parse_tree

SUBJECTS = ("cpu", "trees", "distill")


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "bench",
        help="measure tokens per second",
        description="Decodes a few prompts plainly and with drafts, taking turns, and compares. "
        "`bench cpu` measures every figure of docs/performance.md beside llama.cpp and "
        "transformers; `bench trees` plots speed against the number of candidate tokens; "
        "`bench distill` times the making of training data beside transformers.",
    )
    parser.add_argument("subject", nargs="?", choices=SUBJECTS, help="a larger benchmark")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="three prompts of 64 tokens, three rounds (default); cpu, trees: a tenth of the time",
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens per prompt")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds; medians are shown")
    parser.add_argument("--tree", default="auto", help="as for generate (default: auto)")
    parser.add_argument("--draft", default="auto", help="as for generate (default: auto)")
    parser.add_argument(
        "--limits", action="store_true", help="also measure the machine's memory bandwidth"
    )
    parser.add_argument(
        "--only", action="append", metavar="SECTION", default=[], help="cpu: only these sections"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="cpu: the page to write (default: docs/performance.md in a checkout, for a full run); "
        "trees: the plot, .png or .svg",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    subjects = {"cpu": _cpu, "trees": _trees, "distill": _distill, None: _quick}
    return subjects[args.subject](args)


def _quick(args: argparse.Namespace) -> int:
    """Plain decoding against drafts."""
    from ..bench.quick import run_quick

    tree = parse_tree(args.tree)
    model = load_model(args)
    report = run_quick(
        model,
        max_new_tokens=args.max_new_tokens or 64,
        rounds=args.rounds or 3,
        tree=tree,
        draft=args.draft,
        limits=args.limits,
    )
    print(json.dumps(report.to_json()) if args.json else report.table())
    return 0


def _cpu(args: argparse.Namespace) -> int:
    """Every figure of docs/performance.md, which a full run in a checkout rewrites."""
    import medusa_ext

    from .. import _C
    from ..bench.cpu import run_cpu
    from ..bench.report import table, write

    if args.threads is not None:
        _C.set_num_threads(args.threads)
    report = run_cpu(quick=args.quick, only=args.only)
    page: Path | None = args.output
    docs = Path(medusa_ext.__file__).resolve().parent.parent / "docs"
    if page is None and docs.is_dir() and not args.quick and not args.only:
        page = docs / "performance.md"
    if page is not None:
        write(report, page)
    print(json.dumps(report.to_json()) if args.json else table(report))
    return 0


def _distill(args: argparse.Namespace) -> int:
    """Training data per second."""
    from .. import _C
    from ..bench.distill_speed import measure_distill
    from ..bench.report import rows_table

    if args.threads is not None:
        _C.set_num_threads(args.threads)
    rows = list(
        measure_distill(
            args.model,
            repeats=args.rounds or (1 if args.quick else 3),
            new_tokens=args.max_new_tokens or (32 if args.quick else 96),
        )
    )
    print(json.dumps([row.to_json() for row in rows]) if args.json else rows_table(rows, True))
    return 0


def _trees(args: argparse.Namespace) -> int:
    """Speed against the number of candidate tokens."""
    from ..bench.tree_speed import calibration_of, draw, measure_trees

    model = load_model(args)
    traces = calibration_of(model, None if args.heads == "none" else args.heads)
    found = measure_trees(
        model,
        traces,
        num_random=8 if args.quick else 40,
        repeats=args.rounds or (1 if args.quick else 5),
    )
    if args.output is not None:
        draw(found, args.output)
    print(json.dumps(found.to_json()) if args.json else found.table())
    return 0
