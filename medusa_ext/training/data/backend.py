"""What distill asks of a decoder: slots that are filled, stepped and refilled independently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]


class Emission(NamedTuple):
    """A decided token and the final-norm output [H] that decided it."""

    token: int
    hidden: Float32Array


class Backend(Protocol):
    """A batch of `batch` sequences of at most `max_length` tokens each.

    A sequence's text depends on its prompt and its seed alone, so that a run that was killed
    finds the same answers again whatever shares the batch with them.
    """

    batch: int
    max_length: int
    hidden_size: int

    def set_temperature(self, temperature: float) -> None:
        """How tokens are drawn from now on; 0 is greedy. Only between runs of sequences."""

    def start(
        self, slots: Sequence[int], prompts: Sequence[Int32Array], seeds: Sequence[int]
    ) -> list[Emission]:
        """Puts new prompts into `slots`; the first token of each answer."""

    def step(self, slots: Sequence[int]) -> list[Emission]:
        """The next token of each of `slots`."""
