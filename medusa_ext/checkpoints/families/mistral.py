"""Mistral: Llama with a sliding window."""

from __future__ import annotations

from dataclasses import replace

from ..checks import Fields
from ..config import ModelConfig
from ..config_json import windowed
from ..limits import MAX_POSITIONS
from .family import Family


class Mistral(Family):
    """The window is in every layer (null: none; no key: 4096), or where `layer_types` says."""

    name = "mistral"

    def from_json(self, fields: Fields, ends: Fields) -> ModelConfig:
        config = super().from_json(fields, ends)
        missing = 0 if fields.has_key("sliding_window") else 4096
        window = fields.integer("sliding_window", 0, MAX_POSITIONS, missing)
        return replace(config, layers=windowed(config.layers, fields, window))


FAMILY = Mistral()
