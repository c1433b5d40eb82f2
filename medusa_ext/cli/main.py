"""The `medusa-ext` program: its parser, and how it ends."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from .. import __version__

COMMANDS = (
    "bench",
    "calibrate",
    "chat",
    "convert",
    "distill",
    "doctor",
    "generate",
    "train",
    "tree",
    "tune",
)
_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError, MemoryError)
_FAILED, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command registered.

    A command is a module of this package: its `register(subparsers)` adds a parser whose default
    `run` takes the arguments and returns the exit code.
    """
    parser = argparse.ArgumentParser(
        prog="medusa-ext", description="Medusa-head tree decoding for causal language models."
    )
    parser.add_argument("--version", action="version", version=f"medusa-ext {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name in COMMANDS:
        importlib.import_module(f".{name}", __package__).register(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code. An expected failure is one line on standard error."""
    args = build_parser().parse_args(arguments)
    logging.basicConfig(format="medusa-ext: %(message)s", level=logging.WARNING)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output is gone; Python's own flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _INTERRUPTED
    except _ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"medusa-ext {args.command}: error: {text}", file=sys.stderr)
        return _FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
