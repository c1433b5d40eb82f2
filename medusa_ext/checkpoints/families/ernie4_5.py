"""ERNIE 4.5, the dense ones: Llama rotating adjacent pairs."""

from __future__ import annotations

from .. import config_json
from ..checks import Fields
from ..config import ModelConfig
from ..transforms import Transform, halves_from_pairs
from .family import Family


class Ernie(Family):
    """Checkpoints and GGUF files alike hold q and k for adjacent-pair rotation."""

    name = "ernie4_5"
    gguf_name = "ernie4_5"
    unsupported_flags = ("use_bias",)

    def from_json(self, fields: Fields, ends: Fields) -> ModelConfig:
        config_json.refuse_unsupported(fields, self.unsupported_flags)
        return config_json.decoder_from_json(self.name, fields, ends, default_head_size=128)

    def transform(self, config: ModelConfig, weight: str, *, in_gguf: bool) -> Transform | None:
        return halves_from_pairs(config, weight)


FAMILY = Ernie()
