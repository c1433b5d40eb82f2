"""Seed-OSS: heads of a size of their own, and biases on q, k and v."""

from __future__ import annotations

from dataclasses import replace

from .. import config_json
from ..checks import Fields
from ..config import ModelConfig
from .family import Family


class SeedOss(Family):
    """GGUF files name the norm before the MLP after the attention that it follows."""

    name = "seed_oss"
    gguf_name = "seed_oss"
    unsupported_flags = ("attention_out_bias", "mlp_bias")
    layer_names = Family.layer_names | {
        "ffn_norm": ("post_attention_layernorm.weight", "post_attention_norm.weight"),
    }

    def from_json(self, fields: Fields, ends: Fields) -> ModelConfig:
        config_json.refuse_unsupported(fields, self.unsupported_flags)
        config = config_json.decoder_from_json(self.name, fields, ends, default_head_size=128)
        biased = fields.flag("attention_bias", True)
        layers = tuple(replace(layer, qkv_bias=biased) for layer in config.layers)
        return replace(config, layers=layers)


FAMILY = SeedOss()
