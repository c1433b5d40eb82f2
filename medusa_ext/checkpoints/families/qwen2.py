"""Qwen2 and 2.5: biases on q, k and v, and a window in the upper layers where it is used."""

from __future__ import annotations

from dataclasses import replace

from ..checks import Fields
from ..config import LayerSpec, ModelConfig
from ..config_json import windowed
from ..limits import MAX_POSITIONS
from .family import Family


class Qwen2(Family):
    """The biases are always there, whatever `attention_bias` says."""

    name = "qwen2"
    gguf_name = "qwen2"
    unsupported_flags = ()

    def from_json(self, fields: Fields, ends: Fields) -> ModelConfig:
        config = super().from_json(fields, ends)
        biased = tuple(replace(layer, qkv_bias=True) for layer in config.layers)
        return replace(config, layers=upper_windows(biased, fields))


def upper_windows(layers: tuple[LayerSpec, ...], fields: Fields) -> tuple[LayerSpec, ...]:
    """The layers with Qwen's window: none unless `use_sliding_window`, else from
    `max_window_layers` on."""
    if not fields.flag("use_sliding_window", False):
        return layers
    window = fields.integer("sliding_window", 0, MAX_POSITIONS, 0)
    first = fields.integer("max_window_layers", 0, 1 << 20, 28)
    return windowed(layers, fields, window, first)


FAMILY = Qwen2()
