"""Tiny models for the loading tests: random transformers models, and GGUF files made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "smollm3": (transformers.SmolLM3Config, transformers.SmolLM3ForCausalLM),
    "seed_oss": (transformers.SeedOssConfig, transformers.SeedOssForCausalLM),
    "ernie4_5": (transformers.Ernie4_5Config, transformers.Ernie4_5ForCausalLM),
    "exaone4": (transformers.Exaone4Config, transformers.Exaone4ForCausalLM),
}
# What a family's own defaults would make too large, or wrong for the few tokens of tiny models.
TINY: dict[str, dict[str, Any]] = {
    "smollm3": {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 4},
    "seed_oss": {"pad_token_id": None, "head_dim": 32},
    "ernie4_5": {"pad_token_id": None, "head_dim": 32},
    "exaone4": {"num_hidden_layers": 4, "sliding_window": 8, "sliding_window_pattern": 4},
}


def tiny_model(family: str, **options: Any) -> Any:
    """A random model of a family with every weight (norms and biases too) away from its default."""
    config_class, model_class = CLASSES[family]
    torch.manual_seed(7)
    model = model_class(config_class(**(SIZES | TINY.get(family, {}) | options)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model.eval()


# Name in a Hugging Face layer -> name in a GGUF block.
GGUF_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}


# Where a family's GGUF names are others.
GGUF_NAMES_OF: dict[str, dict[str, str]] = {
    "seed_oss": {"post_attention_layernorm": "post_attention_norm"},
}
PERMUTED = ("llama", "smollm3")  # families whose q and k llama.cpp's conversion reorders


def gguf_name(name: str, family: str = "") -> str:
    """The GGUF name of a Hugging Face weight."""
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    module, field = rest.rsplit(".", 1)
    names = GGUF_NAMES | GGUF_NAMES_OF.get(family, {})
    return f"blk.{layer}.{names[module]}.{field}"


def permute(values: np.ndarray, num_heads: int) -> np.ndarray:
    """What llama.cpp's conversion does to q and k of Llama models."""
    shape = values.shape
    halves = values.reshape(num_heads, 2, shape[0] // num_heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


def write_gguf(
    path: Path,
    model: Any,
    types: dict[str, gguf.GGMLQuantizationType] | None = None,
    *,
    family: str | None = None,
    rope_freqs: np.ndarray | None = None,
    extra: dict[str, Any] | None = None,
    tokens: int = 0,
    tokenizer: str = "smollm",
    raw: dict[str, np.ndarray] | None = None,
) -> None:
    """Writes a model as GGUF.

    `types` maps a piece of a GGUF name to the type of those tensors (matrices without one are F32);
    `raw` has the stored bytes [rows, bytes] of some. `tokens`: how many tokens of a tokenizer to
    add, byte-level with that name of pre-tokenizer, or "llama" for a sentencepiece one.
    """
    config = model.config
    family = family or config.model_type
    writer = gguf.GGUFWriter(path, family)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if family in ("qwen3", "seed_oss", "ernie4_5"):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_eos_token_id(2)
    if tokens and tokenizer == "llama":
        _add_sentencepiece(writer, tokens)
    elif tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(tokenizer)
        letters = [chr(33 + i) for i in range(tokens - 2)]
        writer.add_token_list([*letters, "ab", "abc"])
        writer.add_token_types([1] * tokens)
        writer.add_token_merges(["a b", "ab c"])
    for key, value in (extra or {}).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored, values = gguf_name(name, family), tensor.float().numpy()
        if family in PERMUTED and ".q_proj." in name:
            values = permute(values, config.num_attention_heads)
        if family in PERMUTED and ".k_proj." in name:
            values = permute(values, config.num_key_value_heads)
        kind = next((t for piece, t in (types or {}).items() if piece in stored), None)
        if raw is not None and name in raw:
            writer.add_tensor(stored, raw[name], raw_dtype=kind)
        elif kind is None or values.ndim == 1:
            writer.add_tensor(stored, np.ascontiguousarray(values))
        else:
            writer.add_tensor(stored, gguf.quantize(values, kind), raw_dtype=kind)
    if rope_freqs is not None:
        writer.add_tensor("rope_freqs.weight", rope_freqs.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sentencepiece(writer: gguf.GGUFWriter, tokens: int) -> None:
    """Llama 2's kind of tokenizer: specials, byte tokens, letters and a few merged pieces."""
    pieces = ["\u2581", "a", "b", "c", "ab", "\u2581a", "\u2581ab", "\u2581abc"]
    bytes_ = [f"<0x{i:02X}>" for i in range(tokens - 3 - len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *bytes_, *pieces])
    writer.add_token_scores([0.0] * (3 + len(bytes_)) + [-float(i) for i in range(len(pieces))])
    writer.add_token_types([2, 3, 3, *[6] * len(bytes_), *[1] * len(pieces)])
    writer.add_bos_token_id(1)
    writer.add_unk_token_id(0)


# Canonical name of a layer's weight -> name in a transformers state_dict.
CANONICAL = {
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "o": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}


def state_name(canonical: str) -> str:
    """The state_dict name of a canonical weight."""
    whole = {
        "embed": "model.embed_tokens.weight",
        "final_norm": "model.norm.weight",
        "lm_head": "lm_head.weight",
    }
    if canonical in whole:
        return whole[canonical]
    _, layer, name = canonical.split(".")
    return f"model.layers.{layer}.{CANONICAL[name]}"
