"""Arguments that several commands share, and what they lead to."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..checkpoints.names import DEFAULT_MODEL
from ..checkpoints.types import DEVICES, DTYPES, KV_DTYPES
from ..drafting.trees import Tree
from ..engine.options import ACCEPTANCES, DRAFTS, Options

if TYPE_CHECKING:
    from ..engine.model import Model

Number = TypeVar("Number", int, float)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What to load, and how."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="the default's name, a directory, a .gguf file or a hub id (default: %(default)s)",
    )
    group.add_argument(
        "--heads",
        default="auto",
        help="Medusa heads: auto, none, a packaged name, a path or a hub id (default: auto)",
    )
    group.add_argument(
        "--dtype",
        default="auto",
        choices=DTYPES,
        help="format of the weights (default: the file's own)",
    )
    group.add_argument(
        "--kv-dtype",
        default="auto",
        choices=KV_DTYPES,
        help="format of the cache (default: auto)",
    )
    group.add_argument("--device", default="auto", choices=DEVICES)
    group.add_argument("--threads", type=whole(1), help="CPU threads (default: one per core)")


def load_model(args: argparse.Namespace) -> Model:
    """The model that the arguments name, with a progress bar on a terminal."""
    from .. import _C
    from ..api import load

    if args.threads is not None:
        _C.set_num_threads(args.threads)
    heads = None if args.heads == "none" else args.heads
    return load(
        args.model, heads, args.device, args.dtype, args.kv_dtype, progress=sys.stderr.isatty()
    )


def add_decoding_options(parser: argparse.ArgumentParser, max_new_tokens: int = 256) -> None:
    """How to decode."""
    group = parser.add_argument_group("decoding")
    group.add_argument("--max-new-tokens", type=int, default=max_new_tokens, metavar="N")
    group.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    group.add_argument("--top-p", type=float, default=1.0)
    group.add_argument("--top-k", type=int, default=0, help="0: all (default)")
    group.add_argument("--seed", type=int, help="fixes the draws at temperatures above 0")
    group.add_argument(
        "--tree",
        default="auto",
        help="auto: what is fastest here; none: plain decoding; a number of nodes; "
        "a JSON file with a list of rank paths (default: auto)",
    )
    group.add_argument(
        "--draft", default="auto", choices=DRAFTS, help="where drafts come from (default: auto)"
    )
    group.add_argument("--acceptance", default="lossless", choices=ACCEPTANCES)
    for name, default in (("--epsilon", Options.epsilon), ("--delta", Options.delta)):
        group.add_argument(name, type=float, default=default, help="for typical acceptance")
    group.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help=r"end before this text (\n, \t and \\ as in C); may be repeated",
    )
    group.add_argument("--ignore-eos", action="store_true", help="go on after end tokens")


def decoding_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `generate` that the arguments stand for."""
    return {
        "max_new_tokens": args.max_new_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "seed": args.seed,
        "tree": parse_tree(args.tree),
        "draft": args.draft,
        "acceptance": args.acceptance,
        "epsilon": args.epsilon,
        "delta": args.delta,
        "stop": None if args.stop is None else [unescape(text) for text in args.stop],
        "ignore_eos": args.ignore_eos,
    }


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argument's type: a whole number from `low` up to `high`, if there is one."""
    need = f"a whole number from {low} " + ("up" if high is None else f"to {high}")

    def parse(text: str) -> int:
        number = _parsed(int, text, need)
        if number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"needs {need}, got {text!r}")
        return number

    return parse


def share(text: str) -> float:
    """An argument's type: a number from 0 to 1."""
    return _between(text, "a number from 0 to 1", lambda number: 0 <= number <= 1)


def positive(text: str) -> float:
    """An argument's type: a finite number above 0."""
    return _between(text, "a number above 0", lambda number: 0 < number < math.inf)


def not_negative(text: str) -> float:
    """An argument's type: a finite number from 0 up."""
    return _between(text, "a number from 0 up", lambda number: 0 <= number < math.inf)


def _between(text: str, need: str, fits: Callable[[float], bool]) -> float:
    number = _parsed(float, text, need)
    if not fits(number):
        raise argparse.ArgumentTypeError(f"needs {need}, got {text!r}")
    return number


def _parsed(kind: Callable[[str], Number], text: str, need: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"needs {need}, got {text!r}") from None


def unescape(text: str) -> str:
    r"""The text with \n, \t and \\ read as in C: shells pass them on as they are written."""
    meanings = {r"\n": "\n", r"\t": "\t", "\\\\": "\\"}
    return re.sub(r"\\[nt\\]", lambda found: meanings[found[0]], text)


def parse_tree(text: str) -> str | int | Tree | None:
    """A --tree argument: "auto", "none", a number of nodes, or a JSON file of rank paths."""
    if text in ("auto", "none"):
        return None if text == "none" else text
    if text.isascii() and text.isdigit():
        return int(text)
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"--tree: needs auto, none, a number or a JSON file, got {text!r}")
    return read_tree(path)


def read_tree(path: Path) -> Tree:
    """The tree in a JSON file: a list of rank paths. ValueError naming the file if it is none."""
    try:
        return Tree(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: needs a JSON list of rank paths: {error}") from error
