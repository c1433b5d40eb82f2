"""A `config.json` of Hugging Face's kind, read into the record as most families have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from .checks import Fields
from .config import LayerSpec, ModelConfig
from .limits import (
    MAX_FFN,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_HIDDEN,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_VOCAB,
)
from .rope import rope_from_json

_FALSE: Final = dict.fromkeys(
    ("attention_bias", "attention_out_bias", "mlp_bias", "use_bias"),
    "false (biases on o_proj and the MLP are not supported)",
)


def decoder_from_json(
    family: str, fields: Fields, ends: Fields, *, default_head_size: int | None = None
) -> ModelConfig:
    """The record with plain layers; a family adds what its own have.

    ends: the fields of a `generation_config.json`, whose end tokens count beside the config's own.
    default_head_size: where the config has none; None: H / Q.
    """
    num_layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    hidden = fields.integer("hidden_size", 1, MAX_HIDDEN)
    num_heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    num_kv = fields.integer("num_key_value_heads", 1, MAX_HEADS, num_heads)
    if "head_dim" not in fields and hidden % num_heads:
        need = f"a multiple of the {num_heads} attention heads"
        raise fields.fail("hidden_size", need, hidden)
    head_size = default_head_size or hidden // num_heads
    vocab = fields.integer("vocab_size", 1, MAX_VOCAB)
    starts = fields.ids("bos_token_id", vocab)
    return ModelConfig(
        family=family,
        hidden_size=hidden,
        num_query_heads=num_heads,
        num_kv_heads=num_kv,
        head_size=fields.integer("head_dim", 2, MAX_HEAD_SIZE, head_size),
        ffn_size=fields.integer("intermediate_size", 1, MAX_FFN),
        vocab_size=vocab,
        rms_eps=fields.number("rms_norm_eps", 1e-12, 1.0, 1e-6),
        tied_embeddings=fields.flag("tie_word_embeddings", False),
        ropes=(rope_from_json(fields),),
        layers=(LayerSpec(),) * num_layers,
        max_position_embeddings=fields.integer("max_position_embeddings", 1, MAX_POSITIONS, 2048),
        bos_id=starts[0] if starts else None,
        eos_ids=tuple(
            dict.fromkeys(id_ for file in (ends, fields) for id_ in file.ids("eos_token_id", vocab))
        ),
    )


def refuse_unsupported(fields: Fields, flags: tuple[str, ...]) -> None:
    """Raises ValueError naming an option that the forward does not compute. `flags`: those of the
    family that must not be set."""
    activation = fields.text("hidden_act", "silu")
    if activation != "silu":
        need = "'silu' (other activations are not supported)"
        raise fields.fail("hidden_act", need, activation)
    quantization = fields.raw("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        need = "no pre-quantised weights (use a GGUF file)"
        raise fields.fail("quantization_config", need, method)
    for key in flags:
        if fields.flag(key, False):
            raise fields.fail(key, _FALSE.get(key, "false (not supported)"), True)
    if fields.number("partial_rotary_factor", 0.0, 1e6, 1.0) != 1.0:
        need = "1.0 (partial rotary embeddings are not supported)"
        raise fields.fail("partial_rotary_factor", need, fields.raw("partial_rotary_factor"))
    experts = fields.integer("num_local_experts", 0, 1 << 20, 0)
    if experts > 1:
        raise fields.fail("num_local_experts", "no mixture of experts", experts)
    for name in listed(fields, "architectures"):
        if isinstance(name, str) and name.endswith(("Classification", "QuestionAnswering")):
            raise fields.fail("architectures", "a causal language model", name)


def windowed(
    layers: tuple[LayerSpec, ...], fields: Fields, window: int, first: int = 0
) -> tuple[LayerSpec, ...]:
    """The layers with a sliding window (0: none): those that the `layer_types` of a config.json
    name, or where it has no such list, those from `first` on."""
    if not window:
        return layers
    types = listed(fields, "layer_types")
    unknown = [t for t in types if t not in ("full_attention", "sliding_attention")]
    if types and (unknown or len(types) != len(layers)):
        need = f"{len(layers)} of 'full_attention' and 'sliding_attention'"
        raise fields.fail("layer_types", need, unknown or len(types))
    return tuple(
        replace(layer, window=window)
        if (types[i] == "sliding_attention" if types else i >= first)
        else layer
        for i, layer in enumerate(layers)
    )


def listed(fields: Fields, key: str) -> list[Any]:
    """A list, empty where there is none."""
    value = fields.raw(key, [])
    if not isinstance(value, list):
        raise fields.fail(key, "a list", value)
    return value
