"""What all parts of a benchmark share: sizes, threads, limits and progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from medusa_ext.cli.machine import MemoryReader
from medusa_ext.drafting.trees import Tree

from .gguf_files import gguf_file
from .limits import Limits

SECTIONS: Final = (
    "decode",
    "rows",
    "prefill",
    "arithmetic",
    "rest",
    "overhead",
    "attention",
    "memory",
    "fastest",
    "batches",
    "requests",
    "quality",
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    repeats: int = 5
    prompt_tokens: int = 64
    new_tokens: int = 256
    context: int = 256
    rows: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 32)
    prefill_tokens: int = 512
    attention_context: int = 4096
    prompts_per_set: int = 3
    prompt_new_tokens: int = 128
    batch_new_tokens: int = 64
    requests: int = 64
    slots: int = 16
    long_prompt: int = 4096
    quality_tokens: int = 20_480
    server_drafts: tuple[int, ...] = (0, 8)


FULL: Final = Sizes()
# The same figures, roughly, in a tenth of the time.
QUICK: Final = Sizes(
    repeats=3,
    new_tokens=32,
    prefill_tokens=256,
    attention_context=1024,
    prompts_per_set=1,
    prompt_new_tokens=32,
    batch_new_tokens=16,
    requests=32,
    long_prompt=1024,
    quality_tokens=1024,
    server_drafts=(0, 8),
)


@dataclass
class Setting:
    """One run: `limits` and `memory` are None where they could not be measured."""

    sizes: Sizes
    sections: tuple[str, ...]
    threads: int
    limits: Limits | None = None
    memory: MemoryReader | None = None
    files: Callable[[str], Path] = gguf_file
    progress: tqdm[NoReturn] = field(default_factory=lambda: tqdm(disable=True))

    def begin(self, part: str) -> None:
        """Another part begins: shown where there is a progress bar."""
        self.progress.set_description(part, refresh=False)
        self.progress.update()

    def wants(self, section: str) -> bool:
        """Whether a section was asked for."""
        return section in self.sections

    def memory_side(self) -> dict[str, Callable[[], float | None]]:
        """What takes turns with sides that are bound by memory: "memory", bytes per second."""
        return {} if self.memory is None else {"memory": self.memory}

    def tokens(self, count: int, vocab_size: int) -> npt.NDArray[np.int32]:
        """Arbitrary, always the same tokens."""
        return np.random.default_rng(count).integers(0, vocab_size, count, dtype=np.int32)


def chain(num_nodes: int) -> Tree:
    """The tree in which every node follows the one before."""
    return Tree([[0] * depth for depth in range(1, num_nodes)])
