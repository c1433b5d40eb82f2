"""`medusa-ext convert`: writes Medusa heads in another project's layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..checkpoints.heads.convert import FORMATS


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "convert",
        help="write Medusa heads in another layout",
        description="Converts Medusa heads of any published layout. Where the target cannot hold "
        "something, the error says what.",
    )
    parser.add_argument("heads", help="directory or file with the heads, or a packaged name")
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the layout")
    parser.add_argument(
        "--base",
        help="the base model, where the target stores its lm_head: a name, path or hub id",
    )
    parser.add_argument(
        "--drop-traces", action="store_true", help="agree to lose the calibration's traces"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts and says where."""
    from ..checkpoints.heads.convert import convert
    from ..checkpoints.heads.load import load_heads
    from ..checkpoints.heads.resolve import heads_without_base

    heads = load_heads(heads_without_base(args.heads))
    lm_head, vocab_size = None, None
    if args.base is not None:
        lm_head, vocab_size = _base_lm_head(args.base)
    written = convert(
        heads,
        args.to,
        args.out,
        base_lm_head=lm_head,
        vocab_size=vocab_size,
        drop_traces=args.drop_traces,
    )
    print(written)
    return 0


def _base_lm_head(base: str) -> tuple[Any, int]:
    """The base model's lm_head [V, H] as a torch tensor in float32, and V."""
    import torch

    from ..checkpoints import iter_weights, open_source
    from ..checkpoints.names import resolve_model

    source = open_source(resolve_model(base))
    wanted = "embed" if source.config.tied_embeddings else "lm_head"
    for name, weight in iter_weights(source):
        if name == wanted:
            return torch.from_numpy(weight.to_float().copy()), source.config.vocab_size
    raise ValueError(f"{source.path}: needs a tensor {wanted}, got none")
