"""The model's description, read from a Hugging Face directory and checked before any weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .checks import Fields, failure, read_json

FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3")

MAX_LAYERS: Final = 1024
MAX_HIDDEN: Final = 1 << 17
MAX_HEADS: Final = 4096
MAX_HEAD_SIZE: Final = 1024
MAX_FFN: Final = 1 << 20
MAX_VOCAB: Final = 1 << 22
MAX_POSITIONS: Final = 1 << 31


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies are scaled.

    kind "none"; "linear": divided by `factor`; "llama3": long wavelengths divided by `factor`,
    short ones kept, interpolated between (parameters of Llama 3.1's config); "factors": divided
    one by one by `factors` [D/2], as a GGUF file's `rope_freqs` tensor gives them.
    """

    kind: str = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """Everything the decoder's forward needs to know besides the weights.

    Letters of the design: L layers, H hidden size, Q query heads, G KV heads, D head size,
    V vocabulary. `window_layers[i]` says whether layer i attends through the sliding window,
    in which a query at position p sees the keys of positions > p - sliding_window.
    """

    family: str
    num_layers: int
    hidden_size: int
    num_query_heads: int
    num_kv_heads: int
    head_size: int
    ffn_size: int
    vocab_size: int
    rms_eps: float
    rope_theta: float
    rope_scaling: RopeScaling
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool
    qk_norm: bool
    sliding_window: int = 0
    window_layers: tuple[bool, ...] = ()
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    def layer_window(self, layer: int) -> int:
        """The sliding window of a layer; 0 means full attention."""
        return self.sliding_window if self.sliding_window and self.window_layers[layer] else 0

    def inverse_frequencies(self) -> npt.NDArray[np.float64]:
        """RoPE's angle per position for each pair of dimensions [D/2], scaling applied."""
        half = self.head_size // 2
        exponents = np.arange(half, dtype=np.float64) * 2.0 / self.head_size
        plain = self.rope_theta**-exponents
        scaling = self.rope_scaling
        if scaling.kind == "linear":
            return plain / scaling.factor
        if scaling.kind == "factors":
            return plain / np.asarray(scaling.factors, dtype=np.float64)
        if scaling.kind == "llama3":
            return _llama3_frequencies(plain, scaling)
        return plain


def _llama3_frequencies(
    plain: npt.NDArray[np.float64], scaling: RopeScaling
) -> npt.NDArray[np.float64]:
    """Llama 3.1's frequency bands (Meta's `apply_scaling`), as transformers computes them."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_max_position * plain / (2.0 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 - smooth) * plain / scaling.factor + smooth * plain


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
    if config.sliding_window and len(config.window_layers) != config.num_layers:
        raise failure(
            where,
            "layer types",
            f"one per layer ({config.num_layers})",
            len(config.window_layers),
        )
    scaling = config.rope_scaling
    if scaling.kind == "factors" and len(scaling.factors) != config.head_size // 2:
        raise failure(
            where, "rope factors", f"{config.head_size // 2} numbers", len(scaling.factors)
        )
    return config


def config_from_directory(directory: Path) -> ModelConfig:
    """The configuration of a Hugging Face model directory (`config.json`, and the end tokens of
    `generation_config.json` where there is one).

    Raises ValueError naming file, key, need and value for anything malformed or unsupported.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; a model directory needs a config.json")
    generation_path = directory / "generation_config.json"
    generation = read_json(generation_path) if generation_path.is_file() else {}
    return config_from_json(read_json(path), path, generation, generation_path)


def config_from_json(
    values: dict[str, Any],
    where: str | Path,
    generation: dict[str, Any] | None = None,
    generation_where: str | Path = "generation_config.json",
) -> ModelConfig:
    """The configuration in the object of a Hugging Face `config.json`; see above for errors."""
    fields = Fields(values, where)
    family = fields.text("model_type")
    if family not in FAMILIES:
        raise fields.fail("model_type", f"a supported architecture {FAMILIES}", family)
    _reject_unsupported(fields, family)
    num_layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    hidden = fields.integer("hidden_size", 1, MAX_HIDDEN)
    num_heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    num_kv = fields.integer("num_key_value_heads", 1, MAX_HEADS, num_heads)
    if "head_dim" not in fields and hidden % num_heads:
        raise fields.fail("hidden_size", f"a multiple of the {num_heads} attention heads", hidden)
    default_head_size = 128 if family == "qwen3" else hidden // num_heads
    vocab = fields.integer("vocab_size", 1, MAX_VOCAB)
    theta, scaling = _rope(fields)
    window, window_layers = _sliding_window(fields, family, num_layers)
    ends = Fields(generation or {}, generation_where).ids("eos_token_id", vocab)
    starts = fields.ids("bos_token_id", vocab)
    config = ModelConfig(
        family=family,
        num_layers=num_layers,
        hidden_size=hidden,
        num_query_heads=num_heads,
        num_kv_heads=num_kv,
        head_size=fields.integer("head_dim", 2, MAX_HEAD_SIZE, default_head_size),
        ffn_size=fields.integer("intermediate_size", 1, MAX_FFN),
        vocab_size=vocab,
        rms_eps=fields.number("rms_norm_eps", 1e-12, 1.0, 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        max_position_embeddings=fields.integer("max_position_embeddings", 1, MAX_POSITIONS, 2048),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        sliding_window=window,
        window_layers=window_layers,
        bos_id=starts[0] if starts else None,
        eos_ids=ends or fields.ids("eos_token_id", vocab),
    )
    return check_geometry(config, where)


def _reject_unsupported(fields: Fields, family: str) -> None:
    """Names an option this engine does not compute, before any weight is read."""
    activation = fields.text("hidden_act", "silu")
    if activation != "silu":
        raise fields.fail("hidden_act", "'silu' (other activations are not supported)", activation)
    quantization = fields.raw("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise fields.fail(
            "quantization_config", "no pre-quantised weights (use a GGUF file)", method
        )
    for key in ("attention_bias", "mlp_bias"):
        if fields.flag(key, False) and family != "qwen2":
            raise fields.fail(key, "false (biases on o_proj and the MLP are not supported)", True)
    if fields.number("partial_rotary_factor", 0.0, 1e6, 1.0) != 1.0:
        need = "1.0 (partial rotary embeddings are not supported)"
        raise fields.fail("partial_rotary_factor", need, fields.raw("partial_rotary_factor"))
    experts = fields.integer("num_local_experts", 0, 1 << 20, 0)
    if experts > 1:
        raise fields.fail("num_local_experts", "no mixture of experts", experts)
    for name in _listed(fields, "architectures"):
        if isinstance(name, str) and name.endswith(("Classification", "QuestionAnswering")):
            raise fields.fail("architectures", "a causal language model", name)


def _listed(fields: Fields, key: str) -> list[Any]:
    value = fields.raw(key, [])
    if not isinstance(value, list):
        raise fields.fail(key, "a list", value)
    return value


def _rope(fields: Fields) -> tuple[float, RopeScaling]:
    """RoPE's base and scaling: `rope_parameters` (transformers 5), or `rope_theta` with
    `rope_scaling` (before)."""
    parameters = fields.group("rope_parameters")
    if parameters is None or parameters.raw("rope_theta") is None:
        theta = fields.number("rope_theta", 1.0, 1e15, 10000.0)
    else:
        theta = parameters.number("rope_theta", 1.0, 1e15)
    scaling = parameters if parameters is not None else fields.group("rope_scaling")
    if scaling is None:
        return theta, RopeScaling()
    key = "rope_type" if "rope_type" in scaling else "type"
    kind = scaling.text(key, "default")
    if scaling.number("partial_rotary_factor", 0.0, 1e6, 1.0) != 1.0:
        raise scaling.fail("partial_rotary_factor", "1.0", scaling.raw("partial_rotary_factor"))
    if kind == "default":
        if "mrope_section" in scaling:
            raise scaling.fail("mrope_section", "no multimodal rope", scaling.raw("mrope_section"))
        return theta, RopeScaling()
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=scaling.number("factor", 1e-3, 1e6))
    if kind != "llama3":
        raise scaling.fail(key, "one of 'default', 'linear', 'llama3'", kind)
    low = scaling.number("low_freq_factor", 1e-6, 1e6)
    high = scaling.number("high_freq_factor", 1e-6, 1e6)
    if high <= low:
        raise scaling.fail("high_freq_factor", f"more than low_freq_factor {low:g}", high)
    return theta, RopeScaling(
        kind="llama3",
        factor=scaling.number("factor", 1e-3, 1e6),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position=scaling.integer("original_max_position_embeddings", 1, MAX_POSITIONS),
    )


def _sliding_window(fields: Fields, family: str, num_layers: int) -> tuple[int, tuple[bool, ...]]:
    """The window, and which layers use it, by the rules transformers applies per family: Llama
    has none; Mistral uses it everywhere (null: none; no key: 4096); Qwen where
    `use_sliding_window` allows it."""
    if family == "llama" or (family != "mistral" and not fields.flag("use_sliding_window", False)):
        return 0, ()
    missing = 4096 if family == "mistral" and not fields.has_key("sliding_window") else 0
    window = fields.integer("sliding_window", 0, MAX_POSITIONS, missing)
    if not window:
        return 0, ()
    types = _listed(fields, "layer_types")
    if types:
        unknown = [t for t in types if t not in ("full_attention", "sliding_attention")]
        if unknown or len(types) != num_layers:
            need = f"{num_layers} of 'full_attention' and 'sliding_attention'"
            raise fields.fail("layer_types", need, unknown or len(types))
        return window, tuple(t == "sliding_attention" for t in types)
    first = 0
    if family != "mistral":
        first = fields.integer("max_window_layers", 0, 1 << 20, 28)
    return window, tuple(layer >= first for layer in range(num_layers))
