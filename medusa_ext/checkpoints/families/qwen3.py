"""Qwen3: each head of q and k is normalised; heads have a size of their own."""

from __future__ import annotations

from dataclasses import replace

from .. import config_json
from ..checks import Fields
from ..config import ModelConfig
from .family import Family
from .qwen2 import upper_windows


class Qwen3(Family):
    """Windows are Qwen2's."""

    name = "qwen3"
    gguf_name = "qwen3"

    def from_json(self, fields: Fields, ends: Fields) -> ModelConfig:
        config_json.refuse_unsupported(fields, self.unsupported_flags)
        config = config_json.decoder_from_json(self.name, fields, ends, default_head_size=128)
        normed = tuple(replace(layer, qk_norm=True) for layer in config.layers)
        return replace(config, layers=upper_windows(normed, fields))


FAMILY = Qwen3()
