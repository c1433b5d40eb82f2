"""EXAONE 4: norms after attention and MLP in place of before, and on each head of q and k."""

from __future__ import annotations

from dataclasses import replace

from ..checks import Fields
from ..config import ModelConfig
from ..config_json import listed, windowed
from ..limits import MAX_POSITIONS
from ..rope import NO_ROPE
from .family import Family


class Exaone4(Family):
    """Where a model has windows, its layers without one have no positions either."""

    name = "exaone4"
    layer_names = Family.layer_names | {
        "attn_post_norm": ("post_attention_layernorm.weight", "post_attention_norm.weight"),
        "ffn_post_norm": ("post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
    }

    def from_json(self, fields: Fields, ends: Fields) -> ModelConfig:
        config = super().from_json(fields, ends)
        layers = tuple(
            replace(layer, qk_norm=True, pre_norm=False, post_norm=True) for layer in config.layers
        )
        missing = 0 if fields.has_key("sliding_window") else 4096
        window = fields.integer("sliding_window", 0, MAX_POSITIONS, missing)
        if not window:
            return replace(config, layers=layers)
        if not listed(fields, "layer_types"):
            raise fields.fail("layer_types", "one per layer where there is a window", None)
        layers = windowed(layers, fields, window)
        return replace(
            config,
            ropes=(*config.ropes, NO_ROPE),
            layers=tuple(replace(layer, rope=0 if layer.window else 1) for layer in layers),
        )


FAMILY = Exaone4()
