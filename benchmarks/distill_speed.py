"""`python -m benchmarks distill`: the making of training data, beside transformers' generate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Final

import numpy as np
import numpy.typing as npt

from medusa_ext import _C, load
from medusa_ext.checkpoints import ModelSource, load_tokenizer, open_source, resolve_model
from medusa_ext.checkpoints.tokenizer.ends import end_ids
from medusa_ext.training.data.answer import Job
from medusa_ext.training.data.engine_backend import EngineBackend
from medusa_ext.training.data.self_prompts import encode_prompt
from medusa_ext.training.data.synthetic import template_prompts

from .peers import Transformers
from .rows import Row, interleaved, seconds_of

_PROMPTS: Final = 512
_MAX_PROMPT: Final = 240
_SEED: Final = 7
_BAR: Final = 3.0


@dataclass(frozen=True)
class Setup:
    """A comparison: so many sequences at a time, in our format and in theirs."""

    batch: int
    dtype: str
    peers: tuple[str, ...]


SETUPS: Final = (
    Setup(16, "float32", ("float32",)),
    Setup(64, "int8", ("float32", "bfloat16")),
)


def measure_distill(
    model: str, *, repeats: int = 3, new_tokens: int = 96, setups: Sequence[Setup] = SETUPS
) -> Iterator[Row]:
    """A row per setup: answer tokens per second over those of transformers in its first format.

    Both answer the same template prompts greedily. Ours is distill's own loop in its steady state:
    prompts, end tokens, loops and hidden states included, for batch x new_tokens tokens.
    transformers gets the best case: a full batch of answers of equal length, which never ends early
    and saves nothing.
    """
    import torch

    torch.set_num_threads(_C.num_threads())
    source = open_source(resolve_model(model))
    tokenizer = load_tokenizer(source)
    vocab = source.config.vocab_size
    chosen = islice(template_prompts(_SEED), _PROMPTS)
    encoded = [encode_prompt(tokenizer, vocab, one) for one in chosen]
    prompts = [ids for ids in encoded if len(ids) <= _MAX_PROMPT]
    peers = {
        dtype: Transformers(source.config, dtype)
        for dtype in dict.fromkeys(name for setup in setups for name in setup.peers)
    }
    ends = end_ids(source, tokenizer)
    for setup in setups:
        yield _row(setup, source, prompts, ends, peers, repeats, new_tokens)


def _row(
    setup: Setup,
    source: ModelSource,
    prompts: list[npt.NDArray[np.int32]],
    ends: frozenset[int],
    peers: dict[str, Transformers],
    repeats: int,
    new_tokens: int,
) -> Row:
    model = load(source.path, None, "cpu", setup.dtype, kv_dtype="bfloat16")
    backend = EngineBackend(model, setup.batch, _MAX_PROMPT + new_tokens + 1)
    total = setup.batch * new_tokens
    sides: dict[str, Callable[[], float | None]] = {
        "ours": partial(_ours, backend, prompts, ends, total, new_tokens)
    }
    for dtype in setup.peers:
        sides[f"transformers {dtype}"] = partial(
            _theirs, peers[dtype], prompts[: setup.batch], new_tokens
        )
    speeds = interleaved(sides, repeats, lead_in=False)
    against = f"transformers {setup.peers[0]}"
    return Row(
        "distill",
        f"answers of {setup.batch} sequences in {setup.dtype} against {against}",
        speeds["ours"] / speeds[against],
        "x",
        _BAR,
        details={f"{name}, tokens/s": speed for name, speed in speeds.items()},
    )


def _ours(
    backend: EngineBackend,
    prompts: Sequence[npt.NDArray[np.int32]],
    ends: frozenset[int],
    total: int,
    new_tokens: int,
) -> float:
    """Tokens per second from empty slots on."""
    done = 0

    def progress(tokens: int) -> None:
        nonlocal done
        done += tokens

    jobs = (Job(i, prompts[i % len(prompts)], i) for i in count())

    def run() -> None:
        for _ in backend.answer(jobs, ends, new_tokens, progress=progress):
            if done >= total:
                break

    seconds = seconds_of(run)
    return done / seconds


def _theirs(peer: Transformers, prompts: Sequence[npt.NDArray[np.int32]], new_tokens: int) -> float:
    seconds = seconds_of(lambda: peer.generate(prompts, new_tokens))
    return len(prompts) * new_tokens / seconds
