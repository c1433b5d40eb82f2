"""The decoder against transformers: logits and greedy tokens of real and tiny models."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from loading_models import tiny_model
from models import TINY_VOCAB, real, tiny, tiny_directory

from medusa_ext import generate
from medusa_ext.loading import iter_weights, open_source
from medusa_ext.loading.resolve import resolve_model

PROMPTS = [
    "The capital of France is",
    "def quicksort(array):",
    "My favourite recipe needs two eggs,",
    "In the beginning",
    "The mitochondria is",
    "1, 2, 3, 4, 5,",
    "Dear diary, today",
    "Why do birds sing? Because",
    "import os\nimport sys\n",
    "The weather in London",
]


@functools.cache
def reference() -> Any:
    """The default model in transformers, float32, with the GGUF's own dequantised weights."""
    import transformers

    source = open_source(resolve_model("smollm2-135m-instruct"))
    config = source.config
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.ffn_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_query_heads,
            num_key_value_heads=config.num_kv_heads,
            rms_norm_eps=config.rms_eps,
            rope_theta=config.rope_theta,
            max_position_embeddings=config.max_position_embeddings,
            tie_word_embeddings=True,
        )
    )
    names = {
        "embed": "model.embed_tokens", "final_norm": "model.norm", "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj",
        "v": "self_attn.v_proj", "o": "self_attn.o_proj", "gate": "mlp.gate_proj",
        "up": "mlp.up_proj", "down": "mlp.down_proj",
    }  # fmt: skip
    state = {}
    for name, weight in iter_weights(source):
        prefix, _, last = name.rpartition(".")
        path = f"model.{prefix}.{names[last]}" if prefix else names[last]
        state[f"{path}.weight"] = torch.from_numpy(weight.to_float().copy()).reshape(weight.shape)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and missing == ["lm_head.weight"]
    return model.eval()


def test_real_logits() -> None:
    """Relative to the largest logit, at the end of a prompt and at every node of a tree."""
    model, other = real(), reference()
    session = model.session(max_length=64, max_nodes=8).native
    session.keep_logits(True)
    for prompt in PROMPTS[:3]:
        ids = model.tokenizer.encode(prompt)
        session.truncate(0, 0)
        root = session.prefill(0, np.array(ids, np.int32))
        close(session.prefill_logits(), logits(other, ids)[-1])
        session.begin_step()
        tokens, parents = [root, 50, 60, 70, 80], [-1, 0, 0, 1, 3]
        session.set_tree(0, np.array(tokens, np.int32), np.array(parents, np.int32))
        session.verify()
        for node, row in enumerate(session.tree_logits(0)):
            path = []
            while node >= 0:
                path.append(tokens[node])
                node = parents[node]
            close(row, logits(other, ids + path[::-1])[-1])


def logits(model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        rows: np.ndarray = model(torch.tensor([ids])).logits[0].float().numpy()
    return rows


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-3) -> None:
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_real_greedy_tokens() -> None:
    model, other = real(), reference()
    for prompt in PROMPTS:
        ids = model.tokenizer.encode(prompt)
        found = generate(model, prompt, 48, tree=None, ignore_eos=True).tokens
        assert found == greedy_choices(other, ids, found), prompt


def greedy_choices(model: Any, ids: list[int], continuation: list[int]) -> list[int]:
    """What a model chooses after each prefix of a continuation. It equals the continuation if,
    and only if, that is the model's greedy text; one forward tells."""
    rows = logits(model, ids + continuation[:-1])[len(ids) - 1 :]
    chosen: list[int] = rows.argmax(axis=-1).tolist()
    return chosen


FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"num_attention_heads": 4, "num_key_value_heads": 1}),
    ("mistral", {"sliding_window": 8}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 32}),
]


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_tiny_models(family: str, options: dict[str, Any]) -> None:
    """Logits of a prompt in one and in several parts, and of every node of a tree behind it."""
    import transformers

    model = tiny(family, **options)
    other = transformers.AutoModelForCausalLM.from_pretrained(tiny_directory(family, **options))
    other = other.float().eval()
    rng = np.random.default_rng(5)
    ids = rng.integers(0, TINY_VOCAB, 40).tolist()
    session = model.session(max_length=64, max_nodes=8).native
    session.keep_logits(True)
    expected = logits(other, ids)
    for start, stop in ((0, 1), (1, 17), (17, 40)):
        root = session.prefill(0, np.array(ids[start:stop], np.int32))
        close(session.prefill_logits(), expected[stop - 1])
        assert root == int(expected[stop - 1].argmax())
    session.begin_step()
    tokens, parents = [root, 5, 6, 7, 8, 9, 10], [-1, 0, 0, 1, 1, 3, 2]
    session.set_tree(0, np.array(tokens, np.int32), np.array(parents, np.int32))
    session.verify()
    for node, row in enumerate(session.tree_logits(0)):
        path = []
        while node >= 0:
            path.append(tokens[node])
            node = parents[node]
        close(row, logits(other, ids + path[::-1])[-1])


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_tiny_models_decode_alike(family: str, options: dict[str, Any]) -> None:
    import transformers

    model = tiny(family, **options)
    other = transformers.AutoModelForCausalLM.from_pretrained(tiny_directory(family, **options))
    ids = model.tokenizer.encode("a somewhat longer prompt")
    for tree in ({"tree": None}, {"tree": 12, "draft": "lookup"}):
        found = generate(model, ids, 40, ignore_eos=True, **tree).tokens
        assert found == greedy_choices(other.float().eval(), ids, found)


def test_tiny_model_is_the_one_saved() -> None:
    """Guards the comparison: another seed's weights would not pass."""
    other = tiny_model("llama", vocab_size=TINY_VOCAB)
    session = tiny().session(max_length=32).native
    session.keep_logits(True)
    session.prefill(0, np.array([1, 2, 3], np.int32))
    wrong = logits(other, [1, 2, 3])[-1]
    assert np.abs(session.prefill_logits() - wrong).max() > 0.05 * np.abs(wrong).max()
