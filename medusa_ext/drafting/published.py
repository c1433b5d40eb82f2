"""Published accuracies of Medusa's heads (the reference implementation's assets/medusa_acc.csv)."""

from __future__ import annotations

from typing import Final

NUM_HEADS: Final = 5
# Each head's first guess, by the size of the model that the heads are for.
_TOP1: Final = {
    "7B": (0.560, 0.316, 0.201, 0.147, 0.118),
    "13B": (0.594, 0.340, 0.216, 0.150, 0.122),
}
# What the first five guesses have beyond the first: published for 7B, taken for 13B too.
_TOP5_BEYOND_TOP1: Final = (0.220, 0.247, 0.216, 0.193, 0.182)
_NUM_RANKS: Final = 10


def published_accuracies(
    num_heads: int = NUM_HEADS, num_ranks: int = _NUM_RANKS, size: str = "7B"
) -> list[list[float]]:
    """accuracies[i][r]: how often rank r of head i is the token, for Vicuna of "7B" or "13B".

    Ranks 1 and on share what the first five guesses have beyond the first in the ratio 1 : 1/2 :
    1/3 : 1/4, and so on. Heads beyond the fifth are taken to be like the fifth.
    """
    table = []
    for head in range(num_heads):
        published = min(head, NUM_HEADS - 1)
        share = _TOP5_BEYOND_TOP1[published] / (1 + 1 / 2 + 1 / 3 + 1 / 4)
        ranks = (share / rank for rank in range(1, num_ranks))
        table.append([_TOP1[size][published], *ranks])
    return table
