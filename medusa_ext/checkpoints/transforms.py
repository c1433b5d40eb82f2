"""What becomes of a stored weight on its way into a model's canonical form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .files.weight import WeightTensor

Transform = Callable[[WeightTensor], WeightTensor]


def half_rotation_order(num_rows: int, num_heads: int) -> npt.NDArray[np.int64]:
    """For each row of a q or k matrix that rotates halves, the row of one that rotates pairs.

    Row t * D/2 + j of a head (t = 0, 1) comes from its row 2 j + t.
    """
    order = np.arange(num_rows, dtype=np.int64).reshape(num_heads, -1, 2)
    return order.swapaxes(1, 2).reshape(-1).copy()


def halves_from_pairs(num_heads: int) -> Transform:
    """Turns q or k (matrix or bias) made for rotating adjacent pairs into one that rotates halves.

    Dot products of q and k stay what they were, as both are reordered alike.
    """

    def transform(weight: WeightTensor) -> WeightTensor:
        return weight.with_row_order(half_rotation_order(weight.shape[0], num_heads))

    return transform
