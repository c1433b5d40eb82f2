"""`medusa-ext train`: trains Medusa heads on distilled data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.types import STORAGES, TORCH_DTYPES
from ..files import json_text
from .options import not_negative, positive, share, whole

if TYPE_CHECKING:
    from ..training.heads.settings import TrainSettings

_PRESETS = ("root", "medusa-1", "reference")


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "train",
        help="train Medusa heads on data made by distill",
        description="Trains heads on stored hidden states; the base stays as it is. Under torchrun "
        "several processes share each batch. A directory that holds a checkpoint of the same run "
        "is continued.",
    )
    parser.add_argument("data", type=Path, help="a directory made by distill")
    parser.add_argument("out", type=Path, help="directory for heads, checkpoint and metrics")
    parser.add_argument("--preset", default="root", choices=_PRESETS)
    parser.add_argument("--model", help="the base (default: the one that the data were made with)")
    parser.add_argument("--kind", choices=("medusa", "root"))
    parser.add_argument("--num-heads", type=whole(1))
    parser.add_argument("--num-layers", type=whole(1), help="ResBlocks per head")
    parser.add_argument("--epochs", type=positive)
    parser.add_argument("--batch", type=whole(1), help="rows per step, over all processes")
    parser.add_argument("--learning-rate", type=positive)
    parser.add_argument("--warmup", type=share, help="share of the steps")
    parser.add_argument("--weight-decay", type=not_negative)
    parser.add_argument("--dropout", type=share)
    parser.add_argument("--clip", type=positive, help="largest gradient norm")
    parser.add_argument("--head-weight", type=not_negative, help="head k's loss counts this ** k")
    parser.add_argument(
        "--vocabulary", type=whole(0), help="draft tokens (0: the whole vocabulary)"
    )
    parser.add_argument("--own-lm-head", action="store_true", default=None)
    parser.add_argument("--targets", choices=("hard", "soft"))
    parser.add_argument("--dtype", choices=("auto", *TORCH_DTYPES))
    parser.add_argument("--seed", type=whole(0))
    parser.add_argument("--max-tokens", type=whole(1), help="use only the first of the data")
    parser.add_argument("--checkpoint-every", type=whole(0), default=500, metavar="STEPS")
    parser.add_argument(
        "--evaluate-every", type=whole(0), default=0, metavar="STEPS", help="0: at end"
    )
    parser.add_argument("--storage", default="int8", choices=STORAGES)
    parser.add_argument("--no-plots", action="store_true")
    parser.add_argument("--threads", type=whole(1), help="CPU threads (default: torch's)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, saves the heads and prints the last evaluation."""
    import torch

    from ..training.heads.runs import RunOptions, train
    from ..training.processes import Processes

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    options = RunOptions(
        data=args.data,
        out=args.out,
        model=args.model,
        max_tokens=args.max_tokens,
        checkpoint_every=args.checkpoint_every,
        evaluate_every=args.evaluate_every,
        storage=args.storage,
        plots=not args.no_plots,
        progress=sys.stderr.isatty(),
    )
    processes = Processes()
    try:
        facts = train(_settings(args), options, processes)
    finally:
        processes.leave()
    if processes.first:
        print(json_text(facts))
    return 0


def _settings(args: argparse.Namespace) -> TrainSettings:
    from dataclasses import fields, replace

    from ..training.heads.settings import TrainSettings, preset

    names = [field.name for field in fields(TrainSettings)]
    changes = {name: getattr(args, name) for name in names if name != "vocabulary"}
    settings = preset(args.preset, **changes)
    if args.vocabulary is not None:
        settings = replace(settings, vocabulary=args.vocabulary or None)
    return settings
