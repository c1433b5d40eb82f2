"""`medusa-ext bench`: tokens per second on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from ..files import json_text
from .options import add_model_options, load_model, parse_tree, whole


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "bench",
        help="measure tokens per second",
        description="Decodes a few prompts plainly and with drafts, taking turns, and compares.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="three prompts of 64 tokens, three rounds (default)",
    )
    parser.add_argument("--max-new-tokens", type=whole(1), metavar="N", help="tokens per prompt")
    parser.add_argument("--rounds", type=whole(1), metavar="N", help="rounds; medians are shown")
    parser.add_argument("--tree", default="auto", help="as for generate (default: auto)")
    parser.add_argument("--draft", default="auto", help="as for generate (default: auto)")
    parser.add_argument(
        "--limits", action="store_true", help="also measure the machine's memory bandwidth"
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plain decoding against drafts."""
    from .quick import run_quick

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
    print(json_text(report.to_json()) if args.json else report.table())
    return 0
