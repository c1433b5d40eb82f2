"""The metadata of a GGUF file, read into the record as most families have it."""

from __future__ import annotations

from typing import Any

from .checks import Fields, failure
from .config import LayerSpec, ModelConfig
from .files.gguf import GgufFile
from .limits import (
    MAX_FFN,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_HIDDEN,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_VOCAB,
)
from .rope import rope_from_gguf


def decoder_from_gguf(family: str, fields: Fields, file: GgufFile) -> ModelConfig:
    """The record with equal layers; `fields` are those of the file's architecture.

    Which tensors the file has says whether embeddings are tied, and whether q, k and v have
    biases and norms.
    """
    general = Fields(file.metadata, file.path)
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
    vocab = _vocab_size(fields, file)
    starts = general.ids("tokenizer.ggml.bos_token_id", vocab)
    layer = LayerSpec(
        window=fields.integer("attention.sliding_window", 0, MAX_POSITIONS, 0),
        qkv_bias="blk.0.attn_q.bias" in file,
        qk_norm="blk.0.attn_q_norm.weight" in file,
    )
    return ModelConfig(
        family=family,
        hidden_size=hidden,
        num_query_heads=num_heads,
        num_kv_heads=fields.integer("attention.head_count_kv", 1, MAX_HEADS, num_heads),
        head_size=head_size,
        ffn_size=fields.integer("feed_forward_length", 1, MAX_FFN),
        vocab_size=vocab,
        rms_eps=fields.number("attention.layer_norm_rms_epsilon", 1e-12, 1.0),
        tied_embeddings="output.weight" not in file,
        ropes=(rope_from_gguf(fields, file),),
        layers=(layer,) * num_layers,
        max_position_embeddings=fields.integer("context_length", 1, MAX_POSITIONS, 2048),
        bos_id=starts[0] if starts else None,
        eos_ids=_end_ids(general, vocab),
    )


def refuse_unsupported(fields: Fields, file: GgufFile) -> None:
    """Raises ValueError naming what the forward does not compute."""
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


def _end_ids(general: Fields, vocab: int) -> tuple[int, ...]:
    """The tokens that end generation: end of sequence, of turn and of message."""
    found: dict[int, Any] = {}
    for kind in ("eos", "eot", "eom"):
        found.update(dict.fromkeys(general.ids(f"tokenizer.ggml.{kind}_token_id", vocab)))
    return tuple(found)
