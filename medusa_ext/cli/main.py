"""The `medusa-ext` program: its parser, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__

COMMANDS = (
    "bench",
    "calibrate",
    "chat",
    "convert",
    "distill",
    "doctor",
    "generate",
    "inspect",
    "train",
    "tree",
    "tune",
)
_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError, MemoryError)
_FAILED, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141


class UsageError(Exception):
    """Arguments that a parser does not take; the message is the whole line to show."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: error: {message.removeprefix('argument ')}")


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command registered.

    A command is a module of this package: its `register(subparsers)` adds a parser whose default
    `run` takes the arguments and returns the exit code.
    """
    parser = _Parser(
        prog="medusa-ext", description="Medusa-head tree decoding for causal language models."
    )
    parser.add_argument("--version", action="version", version=f"medusa-ext {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name in COMMANDS:
        importlib.import_module(f".{name}", __package__).register(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code. An expected failure is one line on standard error."""
    _open_closed_streams()
    try:
        args = build_parser().parse_args(arguments)
    except UsageError as error:
        _say(str(error))
        return _FAILED
    logging.basicConfig(format="medusa-ext: %(message)s", level=logging.WARNING)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _BROKEN_PIPE
    except KeyboardInterrupt:
        _say("")
        code = _INTERRUPTED
    except _ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        _say(f"medusa-ext {args.command}: error: {text}")
        code = _FAILED
    _drop_broken_streams()
    return code


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _open_closed_streams() -> None:
    """A standard stream that was closed at the start is None: empty input, output for nobody."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))


def _drop_broken_streams() -> None:
    """The reader is gone or the disk is full: Python's flush at exit must not fail again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
