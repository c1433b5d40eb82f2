"""The model's description, read from the metadata of a GGUF file."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .checks import Fields, failure
from .config import (
    MAX_FFN,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_HIDDEN,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_VOCAB,
    ModelConfig,
    RopeScaling,
    check_geometry,
)
from .files.gguf import GgufFile

# GGUF writes Mistral models under Llama's name.
GGUF_FAMILIES: Final = ("llama", "qwen2", "qwen3")
ROPE_FACTORS: Final = "rope_freqs.weight"


def config_from_gguf(file: GgufFile) -> ModelConfig:
    """The configuration in a GGUF file's metadata, before any weight is read.

    Whether embeddings are tied and whether q, k and v have biases is told by which tensors the
    file has. Raises ValueError naming file, key, need and value.
    """
    general = Fields(file.metadata, file.path)
    family = general.text("general.architecture")
    if family not in GGUF_FAMILIES:
        raise general.fail("general.architecture", f"one of {GGUF_FAMILIES}", family)
    fields = Fields(file.metadata, file.path, prefix=f"{family}.")
    _reject_unsupported(fields, file)
    num_layers = fields.integer("block_count", 1, MAX_LAYERS)
    hidden = fields.integer("embedding_length", 1, MAX_HIDDEN)
    num_heads = fields.integer("attention.head_count", 1, MAX_HEADS)
    if "attention.key_length" not in fields and hidden % num_heads:
        need = f"a multiple of the {num_heads} attention heads"
        raise fields.fail("embedding_length", need, hidden)
    head_size = fields.integer("attention.key_length", 2, MAX_HEAD_SIZE, hidden // num_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if fields.integer(key, 0, MAX_HEAD_SIZE, head_size) != head_size:
            raise fields.fail(key, f"the head size {head_size}", fields.raw(key))
    window = fields.integer("attention.sliding_window", 0, MAX_POSITIONS, 0)
    vocab = _vocab_size(fields, file)
    starts = general.ids("tokenizer.ggml.bos_token_id", vocab)
    config = ModelConfig(
        family=family,
        num_layers=num_layers,
        hidden_size=hidden,
        num_query_heads=num_heads,
        num_kv_heads=fields.integer("attention.head_count_kv", 1, MAX_HEADS, num_heads),
        head_size=head_size,
        ffn_size=fields.integer("feed_forward_length", 1, MAX_FFN),
        vocab_size=vocab,
        rms_eps=fields.number("attention.layer_norm_rms_epsilon", 1e-12, 1.0),
        rope_theta=fields.number("rope.freq_base", 1.0, 1e15, 10000.0),
        rope_scaling=_rope_scaling(fields, file),
        max_position_embeddings=fields.integer("context_length", 1, MAX_POSITIONS, 2048),
        tie_word_embeddings="output.weight" not in file,
        qkv_bias="blk.0.attn_q.bias" in file,
        qk_norm="blk.0.attn_q_norm.weight" in file,
        sliding_window=window,
        window_layers=(True,) * num_layers if window else (),
        bos_id=starts[0] if starts else None,
        eos_ids=_end_ids(general, vocab),
    )
    return check_geometry(config, file.path)


def _reject_unsupported(fields: Fields, file: GgufFile) -> None:
    if fields.integer("expert_count", 0, 1 << 20, 0):
        raise fields.fail("expert_count", "no mixture of experts", fields.raw("expert_count"))
    parts = Fields(file.metadata, file.path).integer("split.count", 0, 1 << 16, 0)
    if parts > 1:
        raise failure(file.path, "split.count", "one file (merge it with llama-gguf-split)", parts)
    for name in ("attn_output.bias", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"):
        if f"blk.0.{name}" in file:
            need = "no bias on the attention output and the MLP (not supported)"
            raise failure(file.path, "tensors", need, f"blk.0.{name}")


def _vocab_size(fields: Fields, file: GgufFile) -> int:
    """The rows of the embedding; the metadata's count may be absent or without padding."""
    if "token_embd.weight" not in file:
        raise failure(file.path, "tensors", "token_embd.weight", f"{len(file)} tensors without it")
    shape = file["token_embd.weight"].shape
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_VOCAB:
        raise failure(file.path, "token_embd.weight", "a matrix of [vocabulary, hidden]", shape)
    stated = fields.integer("vocab_size", 1, MAX_VOCAB, shape[0])
    if stated > shape[0]:
        raise fields.fail("vocab_size", f"at most the {shape[0]} rows of token_embd", stated)
    return shape[0]


def _rope_scaling(fields: Fields, file: GgufFile) -> RopeScaling:
    """RoPE's scaling: a `rope_freqs` tensor (Llama 3.1), or a linear factor."""
    kind = fields.text("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise fields.fail("rope.scaling.type", "'none' or 'linear'", kind)
    if ROPE_FACTORS in file:
        tensor = file[ROPE_FACTORS]
        if tensor.storage != "F32" or tensor.num_columns > MAX_HEAD_SIZE or tensor.num_rows != 1:
            need = f"a vector of at most {MAX_HEAD_SIZE} F32 numbers"
            raise failure(file.path, ROPE_FACTORS, need, (tensor.storage, tensor.shape))
        values = tensor.to_float()[0]
        if not bool(np.isfinite(values).all() and (values > 0).all()):
            raise failure(file.path, ROPE_FACTORS, "positive finite numbers", values.tolist())
        return RopeScaling(kind="factors", factors=tuple(float(v) for v in values))
    if kind == "linear":
        return RopeScaling(kind="linear", factor=fields.number("rope.scaling.factor", 1e-3, 1e6))
    scale = fields.number("rope.scale_linear", 0.0, 1e6, 1.0)
    return RopeScaling(kind="linear", factor=scale) if scale not in (0.0, 1.0) else RopeScaling()


def _end_ids(general: Fields, vocab: int) -> tuple[int, ...]:
    """The tokens that end generation: end of sequence, of turn and of message."""
    found: dict[int, Any] = {}
    for kind in ("eos", "eot", "eom"):
        found.update(dict.fromkeys(general.ids(f"tokenizer.ggml.{kind}_token_id", vocab)))
    return tuple(found)
