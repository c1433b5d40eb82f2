"""Our engine, timed piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from medusa_ext import _C
from medusa_ext.api import generate, load
from medusa_ext.engine.model import Model
from medusa_ext.engine.results import Stats

from .rows import seconds_of

_ROOM = 64


@dataclass(frozen=True)
class StepParts:
    """Seconds of a verification, and of its matrix products and attention."""

    total: float
    products: float
    attention: float


class Ours:
    """A model and a session of one sequence."""

    def __init__(self, path: Path, dtype: str, max_length: int, max_rows: int) -> None:
        self.model: Model = load(path, heads=None, device="cpu", dtype=dtype)
        self.session = _C.Session(
            self.model.native, 1, max_length, max(max_rows, _ROOM), self.model.kv_dtype
        )
        self.vocab_size = self.model.config.vocab_size

    @property
    def weight_bytes(self) -> int:
        """Bytes that a plain step reads: every matrix once, the embedding as the tied lm_head."""
        return self.model.native.packed_bytes

    def decode(self, prompt: Sequence[int], num_tokens: int) -> float:
        """Seconds per token of plain decoding after the prefill."""
        result = generate(self.model, list(prompt), num_tokens, tree=None, ignore_eos=True)
        stats: Stats = result.stats
        seconds = sum(time for name, time in stats.seconds.items() if name != "prefill")
        return seconds / max(stats.steps, 1)

    def fill(self, tokens: npt.NDArray[np.int32]) -> None:
        """Makes the session's text these tokens."""
        self.session.truncate(0, 0)
        self.session.prefill(0, tokens)

    def forward(self, parents: npt.NDArray[np.int32]) -> float:
        """Seconds of one verification of a tree of arbitrary tokens; the text stays."""
        self.propose(parents)
        return seconds_of(self.session.verify)

    def propose(self, parents: npt.NDArray[np.int32]) -> None:
        """Makes a tree of arbitrary tokens the step's."""
        tokens = np.arange(len(parents), dtype=np.int32) + 1
        tokens[0] = self.session.roots[0]
        self.session.begin_step()
        self.session.set_tree(0, tokens, parents)

    def forward_rows(self, rows: int) -> float:
        """Seconds of one forward of a chain of so many rows."""
        return self.forward(np.arange(rows, dtype=np.int32) - 1)

    def step_parts(self, rows: int, repeats: int) -> StepParts:
        """Medians over verifications of a chain of so many rows whose kernels are timed."""
        self.session.set_profiling(True)
        self.forward_rows(rows)
        found = []
        for _ in range(repeats):
            before = self.session.kernel_seconds()
            total = self.forward_rows(rows)
            after = self.session.kernel_seconds()
            parts = (after[name] - before[name] for name in ("linear", "tree_attention"))
            found.append((total, *parts))
        self.session.set_profiling(False)
        return StepParts(*(median(figures) for figures in zip(*found, strict=True)))

    def prefill(self, tokens: npt.NDArray[np.int32]) -> float:
        """Seconds of computing a prompt from nothing."""
        self.session.truncate(0, 0)
        return seconds_of(lambda: self.session.prefill(0, tokens))
