"""The differentiable forward in torch: the native engine's logits, transformers' gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from models import TINY_VOCAB, tiny, tiny_directory
from transformers import AutoModelForCausalLM

from medusa_ext.checkpoints import open_source
from medusa_ext.training.decoder import Decoder
from medusa_ext.training.torch_weights import TorchWeights

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"rope": "llama3"}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    ("mistral", {"sliding_window": 8}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 32}),
    ("smollm3", {}),
    ("seed_oss", {}),
    ("exaone4", {}),
]


def decoder(family: str, options: dict[str, Any]) -> Decoder:
    weights = TorchWeights(open_source(tiny_directory(family, **options)), torch.float32)
    return Decoder(weights, 64)


def token_ids(count: int = 40) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).integers(0, TINY_VOCAB, (1, count)))


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-3) -> None:
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_logits_are_the_native_engines(family: str, options: dict[str, Any]) -> None:
    ids = token_ids()
    other = decoder(family, options)
    found = other.logits(other.forward(ids))[0]
    session = tiny(family, **options).session(max_length=64).native
    session.keep_logits(0, True)
    for position in (0, 1, 16, 39):
        session.truncate(0, 0)
        session.prefill(0, ids[0, : position + 1].numpy().astype(np.int32))
        close(found[position], torch.from_numpy(session.prefill_logits()))


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_gradients_are_those_of_transformers(family: str, options: dict[str, Any]) -> None:
    """Of a loss on the last position: through every layer, back to embedding and first matrices."""
    ids = token_ids()
    other = decoder(family, options)
    first = other.layers[0]
    norm = first.ffn_post_norm if first.ffn_norm is None else first.ffn_norm
    assert norm is not None
    asked = (other.embedding, first.qkv, first.output, first.down, norm)
    for tensor in asked:
        tensor.requires_grad_()
    other.logits(other.forward(ids))[0, -1].square().sum().backward()
    model = AutoModelForCausalLM.from_pretrained(tiny_directory(family, **options)).float()
    model(ids).logits[0, -1].square().sum().backward()
    layer = model.model.layers[0]
    projections = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
    expected = (
        model.model.embed_tokens.weight.grad,
        torch.cat([projection.weight.grad for projection in projections]),
        layer.self_attn.o_proj.weight.grad,
        layer.mlp.down_proj.weight.grad,
        getattr(layer, "post_feedforward_layernorm", layer.post_attention_layernorm).weight.grad,
    )
    for tensor, gradient in zip(asked, expected, strict=True):
        assert tensor.grad is not None
        close(tensor.grad, gradient)
