"""What becomes of a stored weight on its way into a model's canonical form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .config import ModelConfig
from .files.weight import WeightTensor

Transform = Callable[[WeightTensor], WeightTensor]


def half_rotation_order(num_rows: int, num_heads: int) -> npt.NDArray[np.int64]:
    """For each row of a q or k matrix that rotates halves, the row of one that rotates pairs.

    Row t * D/2 + j of a head (t = 0, 1) comes from its row 2 j + t.
    """
    order = np.arange(num_rows, dtype=np.int64).reshape(num_heads, -1, 2)
    return order.swapaxes(1, 2).reshape(-1).copy()


def halves_from_pairs(config: ModelConfig, weight: str) -> Transform | None:
    """Turns q, k and their biases made for rotating adjacent pairs into such that rotate halves;
    None for other weights. Dot products of q and k stay what they were: both are reordered alike.
    """
    heads = {"q": config.num_query_heads, "k": config.num_kv_heads}
    count = heads.get(weight.removesuffix("_bias"))
    if count is None:
        return None
    return lambda stored: stored.with_row_order(half_rotation_order(stored.shape[0], count))
