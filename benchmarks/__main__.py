"""`python -m benchmarks`: the parser of all benchmarks, and how they end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from medusa_ext import _C
from medusa_ext.cli.options import add_model_options, load_model

from . import CHECKOUT


def build_parser() -> argparse.ArgumentParser:
    """A command per benchmark; its default `run` takes the arguments and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(metavar="benchmark", required=True)
    cpu = commands.add_parser(
        "cpu", help="every figure of docs/performance.md beside llama.cpp and transformers"
    )
    cpu.add_argument("--only", action="append", metavar="SECTION", default=[])
    cpu.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="the page to write (default, for a full run: docs/performance.md)",
    )
    cpu.add_argument("--threads", type=int, help="CPU threads (default: one per core)")
    cpu.set_defaults(run=run_cpu)
    trees = commands.add_parser("trees", help="speed against the number of candidate tokens")
    trees.add_argument("--output", type=Path, metavar="PATH", help="the plot, .png or .svg")
    trees.set_defaults(run=run_trees)
    distill = commands.add_parser("distill", help="making training data, beside transformers")
    distill.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens per answer")
    distill.set_defaults(run=run_distill)
    for command in (cpu, trees, distill):
        command.add_argument("--quick", action="store_true", help="in a tenth of the time")
        command.add_argument("--json", action="store_true", help="print all figures as JSON")
    for command in (trees, distill):
        command.add_argument("--rounds", type=int, metavar="N", help="rounds; medians are shown")
        add_model_options(command)
    gpu = commands.add_parser("gpu", help="all that wants a GPU: tests, kernels, decoding")
    gpu.add_argument("--output", type=Path, default=Path("gpu_results"), metavar="FOLDER")
    gpu.add_argument("--only", nargs="+", metavar="SECTION", default=[])
    gpu.add_argument("--toy", action="store_true", help="toy sizes on the CPU, no tests")
    gpu.set_defaults(run=run_gpu)
    return parser


def run_cpu(args: argparse.Namespace) -> int:
    """Every figure of docs/performance.md, which a full run rewrites."""
    from .cpu import measure_cpu
    from .report import table, write

    if args.threads is not None:
        _C.set_num_threads(args.threads)
    report = measure_cpu(quick=args.quick, only=args.only)
    page: Path | None = args.output
    if page is None and not args.quick and not args.only:
        page = CHECKOUT / "docs" / "performance.md"
    if page is not None:
        write(report, page)
    print(json.dumps(report.to_json()) if args.json else table(report))
    return 0


def run_trees(args: argparse.Namespace) -> int:
    """Speed against the number of candidate tokens."""
    from .tree_speed import calibration_of, draw, measure_trees

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


def run_distill(args: argparse.Namespace) -> int:
    """Training data per second."""
    from .distill_speed import measure_distill
    from .report import rows_table

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


def run_gpu(args: argparse.Namespace) -> int:
    """1 if a test failed or a result was wrong, 2 without a GPU."""
    from .gpu import measure_gpu

    return measure_gpu(args.output, args.only, toy=args.toy)


def main(argv: Sequence[str] | None = None) -> int:
    """The program."""
    args = build_parser().parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        sys.exit(f"python -m benchmarks: error: {error}")
