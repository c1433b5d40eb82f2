"""Calibration: the ranks that heads give to the true tokens of real decodes, and what follows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ..checkpoints.heads.load import load_heads
from ..drafting.trees import NestedTrees, nested_from_traces
from ..engine.step import run_step
from .data.loops import loop_start
from .data.prompts import read_prompts, unique
from .data.self_prompts import encode_prompt
from .data.synthetic import template_prompts
from .heads.export import save_whole
from .replay import Ranks, replay

if TYPE_CHECKING:
    from .. import _C
    from ..engine.model import Model

_MAX_PROMPT: Final = 1024
_TOP: Final = 10
REPLAY_SIZES: Final = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class CalibrationOptions:
    """What to decode and what to measure; see the command's help."""

    model: str
    prompts: tuple[Path, ...] = ()
    num_prompts: int = 96
    max_new_tokens: int = 128
    num_ranks: int = 16
    sizes: tuple[int, ...] = (4, 8, 16)
    measure_prompts: int = 16
    dtype: str = "auto"
    batch: int = 32
    seed: int = 1_000_003
    keep_loops: bool = False
    progress: bool = False


@dataclass(frozen=True)
class Decoded:
    """An answer [T] decoded plainly, and the heads' ranks [T, K] of its tokens: row j has head k's
    rank of token j + 1 + k, negative where that is not among the ranks recorded or past the end."""

    prompt: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]
    ranks: Ranks

    def cut(self, length: int) -> Decoded:
        """The first `length` tokens alone."""
        ranks = self.ranks[:length].copy()
        for k in range(ranks.shape[1]):
            ranks[max(0, length - 1 - k) :, k] = -1
        return Decoded(self.prompt, self.tokens[:length], ranks)


@dataclass(frozen=True)
class Report:
    """What a calibration found. `top[k][r]`: head k has the token among its first r + 1 guesses.
    `replayed[n]`: tokens per step with the best tree of n nodes, on the calibration itself.
    `measured[n]`: (real decoding, replay) on the same prompts."""

    positions: int
    top: list[list[float]]
    replayed: dict[int, float]
    measured: dict[int, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """All figures as plain data."""
        return {
            "positions": self.positions,
            "top": self.top,
            "replayed": self.replayed,
            "measured": {n: {"decoded": a, "replayed": b} for n, (a, b) in self.measured.items()},
        }

    def table(self) -> str:
        """The figures as text."""
        lines = [f"{self.positions} positions", "accuracy among the first 1 ... guesses:"]
        for k, row in enumerate(self.top):
            lines.append(f"  head {k + 1}  " + "  ".join(f"{value:.3f}" for value in row))
        lines.append("tokens per step by nodes:")
        lines += [f"  N = {n:3d}  replayed {value:.3f}" for n, value in self.replayed.items()]
        if self.measured:
            lines.append("measured in real decoding, and replayed on the same prompts:")
        for n, (real, told) in self.measured.items():
            lines.append(f"  N = {n:3d}  decoded {real:.3f}  replayed {told:.3f}")
        return "\n".join(lines)


def calibrate(folder: Path, options: CalibrationOptions) -> Report:
    """Decodes, stores the rank traces with the heads in `folder` and measures trees.

    Raises:
        ValueError: the heads do not fit the model, or there is nothing to decode.
        OSError: something cannot be read or written.
    """
    from ..api import load

    checkpoint = load_heads(folder)
    model = load(options.model, folder, dtype=options.dtype, progress=options.progress)
    prompts = list(_prompts(model, options))
    if not prompts:
        raise ValueError("prompts: needs at least one that fits into the context, got none")
    answers = decode_with_ranks(model, prompts, options)
    kept = (
        answers if options.keep_loops else [a.cut(loop_start(a.tokens.tolist())) for a in answers]
    )
    traces = complete_rows(kept)
    if not len(traces):
        raise ValueError("calibration: needs answers longer than there are heads, got none")
    storage = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("storage")
    stored = replace(checkpoint, rank_traces=torch.from_numpy(traces.astype(np.int8)))
    save_whole(stored, folder, storage)
    trees = nested_from_traces(traces)
    return Report(
        positions=len(traces),
        top=_top(traces),
        replayed={n: _replay(kept, trees, n) for n in REPLAY_SIZES},
        measured=_measure(model, answers[: options.measure_prompts], trees, options),
    )


def _prompts(model: Model, options: CalibrationOptions) -> Iterator[npt.NDArray[np.int32]]:
    """The prompts' tokens: from files (held-out lists refused), or templates."""
    if options.prompts:
        found = [p for path in options.prompts for p in read_prompts(path)]
    else:
        # Twice as many as needed, since some repeat.
        found = list(islice(template_prompts(options.seed), 2 * options.num_prompts))
    room = model.config.max_position_embeddings - options.max_new_tokens - 1
    count = 0
    for prompt in unique(found):
        tokens = encode_prompt(model.tokenizer, model.config.vocab_size, prompt)
        if count < options.num_prompts and len(tokens) <= min(_MAX_PROMPT, room):
            count += 1
            yield tokens


def decode_with_ranks(
    model: Model, prompts: Sequence[npt.NDArray[np.int32]], options: CalibrationOptions
) -> list[Decoded]:
    """Greedy answers to all prompts, batch by batch, with the heads' ranks."""
    from tqdm import tqdm

    answers: list[Decoded] = []
    with tqdm(total=len(prompts), unit="prompt", disable=not options.progress) as bar:
        for start in range(0, len(prompts), options.batch):
            part = prompts[start : start + options.batch]
            answers += _decode_batch(model, part, options)
            bar.update(len(part))
    return answers


def _decode_batch(
    model: Model, prompts: Sequence[npt.NDArray[np.int32]], options: CalibrationOptions
) -> list[Decoded]:
    assert model.heads is not None
    longest = max(len(prompt) for prompt in prompts)
    session = model.session(len(prompts), longest + options.max_new_tokens + 1, 1).native
    tokens = [[session.prefill(b, prompt)] for b, prompt in enumerate(prompts)]
    guesses: list[list[npt.NDArray[np.int32]]] = [[] for _ in prompts]
    active = list(range(len(prompts)))
    while active:
        session.set_active(active)
        ids, _ = session.head_candidates(model.heads, options.num_ranks)
        for row, b in enumerate(active):
            guesses[b].append(ids[row].copy())
        active = [b for b in active if not _ended(model, tokens[b], options)]
        if active:
            _plain_step(session, active, tokens)
    return [
        Decoded(prompt, np.array(found, np.int32), ranks_of(found, np.stack(seen)))
        for prompt, found, seen in zip(prompts, tokens, guesses, strict=True)
    ]


def _ended(model: Model, tokens: Sequence[int], options: CalibrationOptions) -> bool:
    return tokens[-1] in model.eos_ids or len(tokens) >= options.max_new_tokens


def _plain_step(session: _C.Session, active: list[int], tokens: list[list[int]]) -> None:
    session.set_active(active)
    run_step(session)
    for b in active:
        tokens[b] += session.emitted(b)


def ranks_of(tokens: Sequence[int], guesses: npt.NDArray[np.int32]) -> Ranks:
    """tokens [T], guesses [T, K, ranks] -> [T, K]: where guesses[j, k] has token j + 1 + k."""
    num_heads = guesses.shape[1]
    ranks = np.full((len(tokens), num_heads), -1, dtype=np.int16)
    for k in range(num_heads):
        true = np.asarray(tokens[k + 1 :], dtype=np.int32)
        hits = guesses[: len(true), k] == true[:, None]
        ranks[: len(true), k] = np.where(hits.any(1), hits.argmax(1), -1)
    return ranks


def complete_rows(answers: Sequence[Decoded]) -> Ranks:
    """The rows [T, K] of all answers at which every head has a true token to be compared with."""
    parts = [
        answer.ranks[: max(0, len(answer.tokens) - answer.ranks.shape[1])] for answer in answers
    ]
    return np.concatenate(parts)


def _top(traces: Ranks) -> list[list[float]]:
    return [
        [float(((traces[:, k] >= 0) & (traces[:, k] <= r)).mean()) for r in range(_TOP)]
        for k in range(traces.shape[1])
    ]


def _replay(answers: Sequence[Decoded], trees: NestedTrees, num_nodes: int) -> float:
    ranks = np.concatenate([answer.ranks for answer in answers])
    return replay(ranks, [len(answer.tokens) for answer in answers], trees.tree(num_nodes))


def _measure(
    model: Model, answers: Sequence[Decoded], trees: NestedTrees, options: CalibrationOptions
) -> dict[int, tuple[float, float]]:
    """Decodes the answers' prompts once more with a tree of each size."""
    from ..api import generate

    found: dict[int, tuple[float, float]] = {}
    for size in options.sizes if answers else ():
        tree = trees.tree(size)
        results = generate(
            model,
            [answer.prompt.tolist() for answer in answers],
            options.max_new_tokens,
            tree=tree,
            draft="heads",
        )
        steps = sum(result.stats.steps for result in results)
        tokens = sum(len(result.tokens) - 1 for result in results)
        real = tokens / steps if steps else 1.0
        found[size] = (real, _replay(answers, trees, size))
    return found
