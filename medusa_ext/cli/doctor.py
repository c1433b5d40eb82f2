"""`medusa-ext doctor`: what this installation consists of, and why."""

from __future__ import annotations

import argparse
from typing import Any


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="report on this installation",
        description="Says what would be loaded, from where, and why; compiles nothing.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the report."""
    from .report import main

    return main()
