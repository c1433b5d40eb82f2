"""`medusa-ext distill`: makes training data from a model's own answers."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.names import DEFAULT_MODEL
from ..checkpoints.types import DTYPES, TORCH_DTYPES
from .options import not_negative, share, whole

if TYPE_CHECKING:
    from ..checkpoints import ModelSource
    from ..training.data.backend import Backend
    from ..training.data.distill import DistillSettings


def register(subparsers: Any) -> None:
    """Adds the command's parser."""
    parser = subparsers.add_parser(
        "distill",
        help="make training data: the model's own answers and hidden states",
        description="Answers prompts with the model itself and keeps the answers with the hidden "
        "states that decided them. Prompts come from JSONL files (plain, messages or ShareGPT) or, "
        "without any, from built-in templates and from the model itself. A directory that holds "
        "part of a run is continued.",
    )
    parser.add_argument("out", type=Path, help="the data directory")
    parser.add_argument("--tokens", type=whole(1), default=1_000_000, help="answer tokens to make")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a name, directory or .gguf file")
    parser.add_argument(
        "--prompts", type=Path, nargs="*", default=[], help="JSONL files or JSON arrays"
    )
    parser.add_argument(
        "--max-broken", type=whole(0), default=20, help="broken lines to put up with"
    )
    parser.add_argument(
        "--exclude",
        type=Path,
        nargs="*",
        default=[],
        help="JSONL files of held-out prompts; prompts that share eight words in a row with them "
        "(or with HumanEval) are dropped",
    )
    parser.add_argument("--max-new-tokens", type=whole(4), default=224, help="tokens per answer")
    parser.add_argument("--max-prompt-tokens", type=whole(8), default=240)
    parser.add_argument("--temperature", type=not_negative, default=0.7)
    parser.add_argument(
        "--temperature-share", type=share, default=0.25, help="prompts not answered greedily"
    )
    parser.add_argument(
        "--self-share", type=share, default=0.25, help="prompts that the model writes itself"
    )
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--batch", type=whole(1), default=64, help="sequences at a time")
    parser.add_argument("--threads", type=whole(1), help="CPU threads (default: one per core)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--backend",
        default="native",
        choices=("native", "torch"),
        help="native: this package's decoder; torch: matrix products through torch",
    )
    parser.add_argument(
        "--dtype",
        default="int8",
        choices=DTYPES,
        help="format of the weights; the torch backend takes float32 or bfloat16",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Makes the data, with a progress bar on a terminal."""
    from ..files import only_writer

    settings = _settings(args)
    with only_writer(args.out):
        _distill(args, settings)
    return 0


def _distill(args: argparse.Namespace, settings: DistillSettings) -> None:
    from tqdm import tqdm

    from ..checkpoints import open_source
    from ..checkpoints.names import resolve_model
    from ..checkpoints.tokenizer.ends import end_ids
    from ..checkpoints.tokenizer.load import load_tokenizer
    from ..training.data.distill import Distiller, open_run
    from ..training.data.prompts import read_exclusion, read_prompts

    prompts = [p for path in args.prompts for p in read_prompts(path, args.max_broken)]
    source = open_source(resolve_model(args.model))
    backend = _backend(args, source, settings)
    tokenizer = load_tokenizer(source)
    fresh = _manifest(args, source, end_ids(source, tokenizer), settings)
    manifest = open_run(args.out, fresh, settings)
    distiller = Distiller(
        args.out,
        manifest,
        settings,
        backend,
        tokenizer,
        read_exclusion(args.exclude),
        prompts,
    )
    quiet = not sys.stderr.isatty()
    with tqdm(total=args.tokens, initial=manifest.tokens, unit="tok", disable=quiet) as bar:

        def progress(done: int) -> None:
            bar.update(done - bar.n)

        finished = distiller.run(args.tokens, progress)
    print(
        f"{finished.tokens} answer tokens of {finished.conversations} conversations in {args.out} "
        f"({finished.seconds:.0f} s)"
    )


def _settings(args: argparse.Namespace) -> DistillSettings:
    from ..training.data.distill import DistillSettings

    return DistillSettings(
        seed=args.seed,
        max_new_tokens=args.max_new_tokens,
        max_prompt_tokens=args.max_prompt_tokens,
        self_share=args.self_share,
        temperature=args.temperature,
        temperature_share=args.temperature_share,
    )


def _manifest(
    args: argparse.Namespace, source: ModelSource, ends: frozenset[int], settings: DistillSettings
) -> Any:
    from ..training.data.shards import Manifest

    made_with = {"backend": args.backend, "dtype": args.dtype}
    made_with["prompts"] = ", ".join(path.name for path in args.prompts)
    return Manifest(
        model=str(args.model),
        fingerprint=source.fingerprint,
        hidden_size=source.config.hidden_size,
        vocab_size=source.config.vocab_size,
        eos_ids=sorted(ends),
        settings=asdict(settings) | made_with,
    )


def _backend(args: argparse.Namespace, source: ModelSource, settings: DistillSettings) -> Backend:
    length = settings.max_prompt_tokens + settings.max_new_tokens + 1
    if length > source.config.max_position_embeddings:
        raise ValueError(
            f"--max-prompt-tokens and --max-new-tokens: need to fit into the model's context of "
            f"{source.config.max_position_embeddings} tokens, got {length}"
        )
    if args.backend == "torch":
        import torch

        from ..training.data.torch_backend import TorchBackend
        from ..training.decoder import Decoder
        from ..training.torch_weights import TorchWeights

        if args.threads is not None:
            torch.set_num_threads(args.threads)
        if args.dtype not in TORCH_DTYPES:
            need = "float32 or bfloat16 with --backend torch"
            raise ValueError(f"--dtype: needs {need}, got {args.dtype}")
        weights = TorchWeights(source, getattr(torch, args.dtype), args.device)
        return TorchBackend(Decoder(weights, length), args.batch, length)
    from .. import _C
    from ..api import load
    from ..training.data.engine_backend import EngineBackend

    if args.threads is not None:
        _C.set_num_threads(args.threads)
    # At such batch sizes the cache is read as much as the weights are: 16 bits halve that.
    model = load(args.model, None, args.device, args.dtype, kv_dtype="bfloat16")
    return EngineBackend(model, args.batch, length)
