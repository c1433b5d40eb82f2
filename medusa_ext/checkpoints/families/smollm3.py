"""SmolLM3: Llama with layers whose q and k are not turned by position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from ..checks import Fields
from ..config import ModelConfig
from ..config_json import listed
from ..files.gguf import GgufFile
from ..rope import NO_ROPE
from ..transforms import Transform, halves_from_pairs
from .family import Family

# Every fourth layer of the published models has no positions; GGUF files do not say it.
_INTERVAL: Final = 4


class SmolLM3(Family):
    """GGUF files have Llama's order of rows in q and k."""

    name = "smollm3"
    gguf_name = "smollm3"
    unsupported_flags = (*Family.unsupported_flags, "use_sliding_window")

    def from_json(self, fields: Fields, ends: Fields) -> ModelConfig:
        config = super().from_json(fields, ends)
        turned = listed(fields, "no_rope_layers")  # 1 where there are positions, despite its name
        if not turned:
            every = fields.integer("no_rope_layer_interval", 1, 1 << 20, _INTERVAL)
            return _still(config, _every(every, config))
        if len(turned) != config.num_layers or any(flag not in (0, 1) for flag in turned):
            raise fields.fail("no_rope_layers", f"{config.num_layers} of 0 and 1", turned)
        return _still(config, [i for i, flag in enumerate(turned) if not flag])

    def from_gguf(self, fields: Fields, file: GgufFile) -> ModelConfig:
        config = super().from_gguf(fields, file)
        return _still(config, _every(_INTERVAL, config))

    def transform(self, config: ModelConfig, weight: str, *, in_gguf: bool) -> Transform | None:
        return halves_from_pairs(config, weight) if in_gguf else None


def _every(interval: int, config: ModelConfig) -> Iterable[int]:
    return range(interval - 1, config.num_layers, interval)


def _still(config: ModelConfig, still: Iterable[int]) -> ModelConfig:
    layers = list(config.layers)
    for i in still:
        layers[i] = replace(layers[i], rope=1)
    return replace(config, ropes=(*config.ropes, NO_ROPE), layers=tuple(layers))


FAMILY = SmolLM3()
