"""`medusa-ext generate`: continues one prompt."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..files import json_text
from .options import add_decoding_options, add_model_options, decoding_options, load_model

if TYPE_CHECKING:
    from ..engine.results import Stats


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "generate",
        help="continue a prompt",
        description="Continues a prompt, given as an argument or on standard input.",
    )
    parser.add_argument("prompt", nargs="?", help="the text; standard input if it is left out")
    parser.add_argument("--chat", action="store_true", help="the prompt is a user's chat message")
    parser.add_argument("--system", help="with --chat: the system message")
    parser.add_argument("--stream", action="store_true", help="print the text as it is made")
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    parser.add_argument(
        "--logprobs", type=int, default=0, metavar="N", help="with --json: the N likeliest tokens"
    )
    parser.add_argument("--stats", action="store_true", help="a line of figures on standard error")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="where the time went, by phase and by kernel, on standard error",
    )
    add_decoding_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the continuation."""
    from ..api import generate, stream

    if args.stream and args.json:
        raise ValueError("--stream: needs to stand without --json, got both")
    if args.system is not None and not args.chat:
        raise ValueError("--system: needs --chat, got none")
    options = {**decoding_options(args), "logprobs": args.logprobs, "profile": args.profile}
    text = sys.stdin.read() if args.prompt is None else args.prompt
    prompt: Any = text
    if args.chat:
        system = [] if args.system is None else [{"role": "system", "content": args.system}]
        prompt = [*system, {"role": "user", "content": text}]
    model = load_model(args)
    if args.stream:
        with stream(model, prompt, **options) as pieces:
            for piece in pieces:
                print(piece, end="", flush=True)
            result = pieces.result
        print()
    else:
        result = generate(model, prompt, **options)
        print(json_text(result.to_json(), ensure_ascii=False) if args.json else result.text)
    if args.stats:
        print(summary(result), file=sys.stderr)
    if args.profile:
        print(profile_table(result.stats), file=sys.stderr)
    return 0


def summary(result: Any) -> str:
    """One line on how a result was decoded."""
    stats = result.stats
    parts = [
        f"{len(result.tokens)} tokens ({result.finish_reason})",
        f"{stats.tokens_per_second:.1f} tokens/s",
        f"{stats.tokens_per_step:.2f} tokens/step",
        f"draft {stats.draft}",
    ]
    return ", ".join(parts) + (f"; {stats.note}" if stats.note else "")


def profile_table(stats: Stats) -> str:
    """Milliseconds by phase and by kernel, the longest first."""
    lines = []
    for kind, seconds in (("phase", stats.seconds), ("kernel", stats.kernels)):
        lines.append(f"{kind:16} {'ms':>10}")
        longest_first = sorted(seconds.items(), key=lambda item: -item[1])
        lines += [f"{name:16} {1e3 * time:10.2f}" for name, time in longest_first]
    return "\n".join(lines)
