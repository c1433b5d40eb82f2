"""`medusa-ext chat`: a conversation on the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .generate import summary
from .options import add_decoding_options, add_model_options, decoding_options, load_model, whole

_HELP = "/reset starts anew, /quit (or Ctrl-D) leaves, Ctrl-C interrupts an answer"


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "chat", help="talk with a model", description=f"A conversation. {_HELP}."
    )
    parser.add_argument("--system", help="the system message")
    parser.add_argument(
        "--max-length", type=whole(1), default=4096, help="tokens of a whole conversation"
    )
    add_decoding_options(parser, max_new_tokens=1024)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reads messages until the end of input."""
    options = decoding_options(args)
    model = load_model(args)
    limit = min(args.max_length, model.config.max_position_embeddings)
    session = model.session(max_length=limit)
    start = [] if args.system is None else [{"role": "system", "content": args.system}]
    history = list(start)
    if sys.stdin.isatty():
        print(f"{model.name}: {_HELP}", file=sys.stderr)
    while (message := _read()) is not None:
        if message == "/quit":
            break
        if message == "/reset":
            history = list(start)
        elif message.startswith("/"):
            print(_HELP, file=sys.stderr)
        elif message.strip():
            _answer(session, history, message, options)
    return 0


def _read() -> str | None:
    """The next message; None at the end of input. Ctrl-C only clears the line."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            print(file=sys.stderr)


def _answer(
    session: Any, history: list[dict[str, str]], message: str, options: dict[str, Any]
) -> None:
    """Streams an answer and adds both to the history; an interrupted one as far as it came.

    A message that was interrupted before anything was said stands as if never sent.
    """
    from ..api import stream

    asked = [*history, {"role": "user", "content": message}]
    spoken = ""
    try:
        with stream(session, asked, **options) as pieces:
            for piece in pieces:
                spoken += piece
                print(piece, end="", flush=True)
            line = summary(pieces.result)
    except KeyboardInterrupt:
        line = "interrupted"
    except ValueError as error:
        print(f"{error} (/reset starts anew)", file=sys.stderr)
        return
    print()
    print(f"[{line}]", file=sys.stderr, flush=True)
    if spoken or line != "interrupted":
        history[:] = [*asked, {"role": "assistant", "content": spoken}]
