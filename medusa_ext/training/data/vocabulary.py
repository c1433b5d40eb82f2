"""The draft vocabulary: the tokens that heads may propose, chosen from the training answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..heads.stack import IGNORED


@dataclass(frozen=True)
class DraftVocabulary:
    """`token_map` [V'] int32, ascending: draft id -> token id. `coverage`: share of the counted
    answer tokens that it contains."""

    token_map: npt.NDArray[np.int32]
    coverage: float

    @property
    def size(self) -> int:
        """V'."""
        return len(self.token_map)

    def draft_ids(self, tokens: torch.Tensor, vocab_size: int) -> torch.Tensor:
        """Token ids -> draft ids, IGNORED where a token is not in the draft vocabulary (or was
        IGNORED already); the same shape, int32."""
        table = torch.full((vocab_size + 1,), IGNORED, dtype=torch.int32)
        table[torch.from_numpy(self.token_map.astype(np.int64))] = torch.arange(
            self.size, dtype=torch.int32
        )
        # IGNORED, -1, finds the last entry.
        return table[tokens.long()]

    def coverage_of(self, tokens: npt.NDArray[np.int32]) -> float:
        """The share of other tokens that it contains."""
        return float(np.isin(tokens, self.token_map).mean()) if len(tokens) else 0.0


def choose_vocabulary(
    tokens: npt.NDArray[np.int32], vocab_size: int, size: int | None
) -> DraftVocabulary:
    """The `size` most frequent tokens (FR-Spec); all of the vocabulary for None.

    Ties go to the lower id; tokens never seen fill up the size. Raises ValueError if the size is
    out of range.
    """
    if size is None:
        return DraftVocabulary(np.arange(vocab_size, dtype=np.int32), 1.0)
    if not 1 <= size <= vocab_size:
        raise ValueError(f"draft vocabulary: needs 1 to {vocab_size} tokens, got {size}")
    counts = np.bincount(tokens, minlength=vocab_size)
    chosen = np.sort(np.argsort(-counts, kind="stable")[:size]).astype(np.int32)
    return DraftVocabulary(chosen, float(counts[chosen].sum() / max(1, counts.sum())))
