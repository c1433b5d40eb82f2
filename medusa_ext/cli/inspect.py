"""`medusa-ext inspect`: what a model's files say, without reading its weights."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..checkpoints.names import DEFAULT_MODEL

if TYPE_CHECKING:
    from ..checkpoints import ModelSource


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "inspect",
        help="say what a model's files hold",
        description="Says what a model's files hold: its sizes, the formats of its weights, how "
        "its text is cut into tokens, and which tokens begin and end a text. Reads no weights.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        help="the default's name, a directory, a GGUF file or a hub id (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the facts, one a line."""
    from ..checkpoints import load_tokenizer, open_source, resolve_model

    source = open_source(resolve_model(args.model))
    facts = _model(source) | _tokenizer(source, load_tokenizer(source))
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:{width}}  {fact}")
    return 0


def _model(source: ModelSource) -> dict[str, str]:
    config = source.config
    formats = Counter(source.tensors[item.file_name].storage for item in source.plan)
    return {
        "model": str(source.path),
        "family": f"{config.family}, {config.num_layers} layers of {config.hidden_size}",
        "context": f"{config.max_position_embeddings} tokens",
        "vocabulary": f"{config.vocab_size} rows, "
        + ("shared by embeddings and lm_head" if config.tied_embeddings else "lm_head of its own"),
        "weights": ", ".join(f"{count} in {name}" for name, count in formats.most_common()),
    }


def _tokenizer(source: ModelSource, tokenizer: Any) -> dict[str, str]:
    from ..checkpoints.tokenizer.ends import end_ids

    kind = type(tokenizer).__name__
    if source.gguf is not None:
        keys = ("tokenizer.ggml.model", "tokenizer.ggml.pre")
        kind = " ".join(str(source.gguf.metadata[k]) for k in keys if k in source.gguf.metadata)
    template = tokenizer.chat_template
    names = ", ".join(template) if isinstance(template, dict) else "one" if template else "none"
    starts = tokenizer.encode("", add_special_tokens=True)
    return {
        "tokenizer": f"{kind}, {len(tokenizer)} tokens",
        "chat template": names,
        "begins with": _spelled(tokenizer, starts),
        "ends at": _spelled(tokenizer, sorted(end_ids(source, tokenizer))),
    }


def _spelled(tokenizer: Any, ids: Iterable[int]) -> str:
    spelled = (f"{tokenizer.convert_ids_to_tokens(token)} ({token})" for token in ids)
    return ", ".join(spelled) or "nothing"
