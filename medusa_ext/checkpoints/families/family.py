"""What a family is: how its descriptions are read into the one record, and its weights named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from .. import config_gguf, config_json
from ..checks import Fields
from ..config import ModelConfig
from ..files.gguf import GgufFile
from ..plan import PlannedWeight, layer_shapes
from ..transforms import Transform


class Family:
    """A family whose ways are the commonest: RMS norms before attention and a SiLU-gated MLP, no
    biases, rotation of halves. Each family overrides what it does otherwise.

    Methods raise ValueError naming file, key, need and value for anything malformed or
    unsupported; no weight is read by any of them.
    """

    name: ClassVar[str]  # `model_type` in a config.json
    gguf_name: ClassVar[str | None] = None  # `general.architecture` in a GGUF file
    # Options that must not be set, as the forward does not compute what they ask for.
    unsupported_flags: ClassVar[tuple[str, ...]] = ("attention_bias", "mlp_bias")
    # Canonical name -> (name in a Hugging Face checkpoint, name in a GGUF file).
    model_names: ClassVar[Mapping[str, tuple[str, str]]] = {
        "embed": ("model.embed_tokens.weight", "token_embd.weight"),
        "final_norm": ("model.norm.weight", "output_norm.weight"),
        "lm_head": ("lm_head.weight", "output.weight"),
    }
    layer_names: ClassVar[dict[str, tuple[str, str]]] = {
        "attn_norm": ("input_layernorm.weight", "attn_norm.weight"),
        "q": ("self_attn.q_proj.weight", "attn_q.weight"),
        "k": ("self_attn.k_proj.weight", "attn_k.weight"),
        "v": ("self_attn.v_proj.weight", "attn_v.weight"),
        "q_bias": ("self_attn.q_proj.bias", "attn_q.bias"),
        "k_bias": ("self_attn.k_proj.bias", "attn_k.bias"),
        "v_bias": ("self_attn.v_proj.bias", "attn_v.bias"),
        "q_norm": ("self_attn.q_norm.weight", "attn_q_norm.weight"),
        "k_norm": ("self_attn.k_norm.weight", "attn_k_norm.weight"),
        "o": ("self_attn.o_proj.weight", "attn_output.weight"),
        "ffn_norm": ("post_attention_layernorm.weight", "ffn_norm.weight"),
        "gate": ("mlp.gate_proj.weight", "ffn_gate.weight"),
        "up": ("mlp.up_proj.weight", "ffn_up.weight"),
        "down": ("mlp.down_proj.weight", "ffn_down.weight"),
    }

    def from_json(self, fields: Fields, ends: Fields) -> ModelConfig:
        """The record of a `config.json`; `ends` are the fields of a `generation_config.json`."""
        config_json.refuse_unsupported(fields, self.unsupported_flags)
        return config_json.decoder_from_json(self.name, fields, ends)

    def from_gguf(self, fields: Fields, file: GgufFile) -> ModelConfig:
        """The record of a GGUF file; `fields` are those of its architecture."""
        config_gguf.refuse_unsupported(fields, file)
        return config_gguf.decoder_from_gguf(self.name, fields, file)

    def plan(self, config: ModelConfig, *, in_gguf: bool) -> tuple[PlannedWeight, ...]:
        """Every weight the record calls for, in the order of the forward pass."""
        column = 1 if in_gguf else 0
        hidden = config.hidden_size
        matrix = (config.vocab_size, hidden)
        plan = [PlannedWeight("embed", self.model_names["embed"][column], matrix)]
        for i, layer in enumerate(config.layers):
            prefix = f"blk.{i}." if in_gguf else f"model.layers.{i}."
            plan += [
                PlannedWeight(
                    f"layers.{i}.{name}",
                    prefix + self.layer_names[name][column],
                    shape,
                    self.transform(config, name, in_gguf=in_gguf),
                )
                for name, shape in layer_shapes(config, layer).items()
            ]
        plan.append(PlannedWeight("final_norm", self.model_names["final_norm"][column], (hidden,)))
        if not config.tied_embeddings:
            plan.append(PlannedWeight("lm_head", self.model_names["lm_head"][column], matrix))
        return tuple(plan)

    def transform(self, config: ModelConfig, weight: str, *, in_gguf: bool) -> Transform | None:
        """What a layer's stored weight of this canonical name needs on its way into the model."""
        del config, weight, in_gguf
        return None
