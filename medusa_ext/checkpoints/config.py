"""The record of a model: everything a forward needs to know besides the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .checks import failure
from .rope import Rope


@dataclass(frozen=True)
class LayerSpec:
    """What one decoder layer does where layers differ, within a model or between families.

    window: how many positions a query sees, its own included; 0 means all before it. rope: which
    of the model's rotary tables turns q and k. qkv_bias: q, k and v have biases. qk_norm: each
    head of q and k is normalised before it is turned. pre_norm: attention and MLP read the
    normalised residual stream. post_norm: what they add to it is normalised.
    """

    window: int = 0
    rope: int = 0
    qkv_bias: bool = False
    qk_norm: bool = False
    pre_norm: bool = True
    post_norm: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """Sizes, rotary tables and layers, as read from a description of any format.

    Letters of the design: H hidden size, Q query heads, G KV heads, D head size, V vocabulary.
    The native module reads the attributes of csrc/model/config.h's table under the same names.
    """

    family: str
    hidden_size: int
    num_query_heads: int
    num_kv_heads: int
    head_size: int
    ffn_size: int
    vocab_size: int
    rms_eps: float
    tied_embeddings: bool
    ropes: tuple[Rope, ...]
    layers: tuple[LayerSpec, ...]
    max_position_embeddings: int
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layers)

    @property
    def inverse_frequencies(self) -> list[npt.NDArray[np.float64]]:
        """Of each rotary table, the angle per position for each pair of dimensions [D/2]."""
        return [rope.inverse_frequencies(self.head_size) for rope in self.ropes]


def check_geometry(config: ModelConfig, where: str | Path) -> ModelConfig:
    """Returns the config if its sizes fit each other; ValueError naming file and sizes if not."""
    if config.num_query_heads % config.num_kv_heads:
        raise failure(
            where,
            "number of key/value heads",
            f"a divisor of the {config.num_query_heads} query heads",
            config.num_kv_heads,
        )
    if config.head_size % 2:
        raise failure(where, "head size", "an even number (rotary pairs)", config.head_size)
    for rope in config.ropes:
        factors = rope.scaling.factors
        if rope.scaling.kind == "factors" and len(factors) != config.head_size // 2:
            need = f"{config.head_size // 2} numbers"
            raise failure(where, "rope factors", need, len(factors))
    return config
