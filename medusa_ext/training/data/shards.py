"""Self-distilled data on disk: shards of answers with their hidden states, and a manifest.

A shard is a safetensors file. For conversation i with prompt p and answer a (its end token
included) `hidden[offsets[i] + j]` is the base's final-norm output that decided `answer[offsets[i] +
j]`; so the head k learns from that row to guess `answer[offsets[i] + j + 1 + k]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...files import whole_file, write_json

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_FLOAT16_MAX: Final = 65504.0


@dataclass(frozen=True)
class Conversation:
    """A prompt's tokens, the answer's tokens [T] and their hidden states [T, H] float16."""

    prompt: npt.NDArray[np.int32]
    answer: npt.NDArray[np.int32]
    hidden: npt.NDArray[np.float16]


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard: its place in the run's plan and what it holds."""

    round: int
    temperature: float
    index: int
    conversations: int
    tokens: int

    @property
    def name(self) -> str:
        """The shard's file name."""
        kind = "greedy" if self.temperature == 0 else "sampled"
        return f"round{self.round:04d}-{kind}-{self.index:04d}.safetensors"


@dataclass
class Manifest:
    """What a data directory holds: the base it was made with, settings, finished shards."""

    model: str
    fingerprint: str
    hidden_size: int
    vocab_size: int
    eos_ids: list[int]
    settings: dict[str, Any]
    shards: list[ShardInfo] = field(default_factory=list)
    finished: bool = False
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Answer tokens in all finished shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def conversations(self) -> int:
        """Conversations in all finished shards."""
        return sum(shard.conversations for shard in self.shards)

    def save(self, folder: Path) -> None:
        """Writes the manifest; a kill leaves the old one."""
        write_json(folder / MANIFEST, {"format": _FORMAT, **asdict(self)})

    @staticmethod
    def load(folder: Path) -> Manifest:
        """The manifest of a data directory.

        Raises FileNotFoundError if there is none and ValueError if it is damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not found; a data directory is made by distill")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != _FORMAT:
                raise ValueError("needs format 1")
            values["shards"] = [ShardInfo(**shard) for shard in values["shards"]]
            return Manifest(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            need = "a manifest written by distill"
            raise ValueError(f"{path}: needs {need}, got: {error}") from error


def to_float16(hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Rows [T, H] as stored. Raises ValueError for values that 16 bits cannot hold."""
    largest = float(np.abs(hidden).max(initial=0.0))
    if not largest <= _FLOAT16_MAX:
        raise ValueError(
            f"hidden states: need finite values of magnitude up to {_FLOAT16_MAX:g}, got {largest}"
        )
    return hidden.astype(np.float16)


def write_shard(path: Path, conversations: Sequence[Conversation]) -> None:
    """Writes conversations as one shard, whole or not at all."""
    from safetensors.numpy import save_file

    def offsets(parts: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)

    prompts = [conversation.prompt for conversation in conversations]
    answers = [conversation.answer for conversation in conversations]
    tensors: dict[str, npt.NDArray[Any]] = {
        "prompt": np.concatenate(prompts),
        "prompt_offsets": offsets(prompts),
        "answer": np.concatenate(answers),
        "offsets": offsets(answers),
        "hidden": np.concatenate([conversation.hidden for conversation in conversations]),
    }
    with whole_file(path) as made:
        save_file(tensors, made)


def read_shard(path: Path) -> list[Conversation]:
    """The conversations of a shard; ValueError naming the file if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        rows = zip(_pairs(tensors["prompt_offsets"]), _pairs(tensors["offsets"]), strict=True)
        return [
            Conversation(tensors["prompt"][p:q], tensors["answer"][a:b], tensors["hidden"][a:b])
            for (p, q), (a, b) in rows
        ]
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: needs a shard written by distill, got: {error}") from error


def _pairs(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    yield from zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
