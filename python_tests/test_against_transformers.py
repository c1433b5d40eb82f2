"""The decoder against transformers: logits and greedy tokens of real and tiny models."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from loading_models import gguf_name, tiny_model, write_gguf
from models import TINY_VOCAB, real, tiny, tiny_directory

import medusa_ext
from medusa_ext import generate
from medusa_ext.checkpoints import iter_weights, open_source
from medusa_ext.checkpoints.names import resolve_model

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
            rope_parameters={"rope_type": "default", "rope_theta": config.ropes[0].theta},
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
    session.keep_logits(0, True)
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
    ("llama", {"rope": "linear"}),
    ("llama", {"rope": "llama3"}),
    ("mistral", {"sliding_window": 8}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 32}),
    ("smollm3", {"tie_word_embeddings": False}),
    ("smollm3", {"no_rope_layer_interval": 2}),
    ("seed_oss", {}),
    ("seed_oss", {"attention_bias": False, "tie_word_embeddings": True}),
    ("ernie4_5", {"tie_word_embeddings": False}),
    ("exaone4", {}),
    ("exaone4", {"sliding_window_pattern": 2}),
]


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_tiny_models(family: str, options: dict[str, Any]) -> None:
    import transformers

    model = tiny(family, **options)
    other = transformers.AutoModelForCausalLM.from_pretrained(tiny_directory(family, **options))
    other = other.float().eval()
    check_logits(model, other)


def check_logits(model: Any, other: Any) -> None:
    """Logits of a prompt in one and in several parts, and of every node of a tree after it."""
    rng = np.random.default_rng(5)
    ids = rng.integers(0, TINY_VOCAB, 40).tolist()
    session = model.session(max_length=64, max_nodes=8).native
    session.keep_logits(0, True)
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


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_sharded_models(family: str, tmp_path: Path) -> None:
    """The same weights in many files."""
    import transformers

    directory = tiny_directory(family)
    other = transformers.AutoModelForCausalLM.from_pretrained(directory).float().eval()
    other.save_pretrained(tmp_path, max_shard_size="60KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(directory / name, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    check_logits(medusa_ext.load(tmp_path, heads=None), other)


# Pieces of GGUF names -> the type they are stored in; all the native types and some others.
GGUF_TYPES = {
    "attn_q": Type.Q4_0,
    "attn_k": Type.Q8_0,
    "attn_v": Type.Q4_1,
    "attn_output": Type.F16,
    "ffn_gate": Type.BF16,
    "ffn_up": Type.Q5_1,
    "ffn_down": Type.F32,
    "token_embd": Type.Q8_0,
    "output.weight": Type.Q5_0,
}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm3", "seed_oss", "ernie4_5"])
def test_gguf_models_of_mixed_types(family: str, tmp_path: Path) -> None:
    """Against transformers with the same rounded weights; packed as they are stored, drafts change
    nothing either."""
    original = tiny_model(family, vocab_size=TINY_VOCAB)
    path = tmp_path / "model.gguf"
    write_gguf(path, original, GGUF_TYPES, tokens=TINY_VOCAB)
    with torch.no_grad():
        for name, parameter in original.named_parameters():
            stored = gguf_name(name, family)
            kind = next((t for piece, t in GGUF_TYPES.items() if piece in stored), Type.F32)
            if parameter.ndim == 2:
                values = gguf.dequantize(gguf.quantize(parameter.numpy(), kind), kind)
                if kind in (Type.Q5_0, Type.Q5_1):  # these go through 16 bits
                    values = values.astype(np.float16)
                parameter.copy_(torch.from_numpy(values.reshape(parameter.shape)))
    check_logits(medusa_ext.load(path, heads=None, dtype="float32"), original)
    check_drafts(medusa_ext.load(path, heads=None))


def check_drafts(model: Any) -> None:
    plain = generate(model, "!abc#abc!", 60, tree=None, ignore_eos=True)
    drafted = generate(model, "!abc#abc!", 60, tree=8, draft="lookup", ignore_eos=True)
    assert drafted.tokens == plain.tokens


def test_gguf_models_of_k_quants(tmp_path: Path) -> None:
    """As in real files: a Q4_0 model whose lm_head is Q6_K, and Q4_K among its matrices. The gguf
    package cannot write these: the blocks are random, with small scales."""
    sizes = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "num_hidden_layers": 1}
    original = tiny_model("llama", vocab_size=TINY_VOCAB, **sizes)
    types = {"attn_": Type.Q4_0, "output.weight": Type.Q6_K, "ffn_down": Type.Q4_K}
    raw = {"lm_head.weight": k_quant_blocks(Type.Q6_K, TINY_VOCAB, slice(208, 210))}
    raw["model.layers.0.mlp.down_proj.weight"] = k_quant_blocks(Type.Q4_K, 256, slice(0, 4))
    path = tmp_path / "model.gguf"
    write_gguf(path, original, types, tokens=TINY_VOCAB, raw=raw)
    with torch.no_grad():
        for name, parameter in original.named_parameters():
            if name in raw:
                kind = next(t for piece, t in types.items() if piece in gguf_name(name))
                values = gguf.dequantize(raw[name], kind).astype(np.float16)
                parameter.copy_(torch.from_numpy(values))
            elif "self_attn" in name:
                values = gguf.dequantize(gguf.quantize(parameter.numpy(), Type.Q4_0), Type.Q4_0)
                parameter.copy_(torch.from_numpy(values))
    check_logits(medusa_ext.load(path, heads=None, dtype="float32"), original)
    check_drafts(medusa_ext.load(path, heads=None))


def k_quant_blocks(kind: Type, rows: int, scales: slice) -> np.ndarray:
    """[rows, bytes]: one block of 256 random values per row; `scales`: where its 16-bit floats
    are."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(4).integers(0, 256, (rows, size), dtype=np.uint8)
    scale = np.full((rows, (scales.stop - scales.start) // 2), 2e-4, np.float16)
    raw[:, scales] = scale.view(np.uint8)
    return raw


def test_tiny_model_is_the_one_saved() -> None:
    """Guards the comparison: another seed's weights would not pass."""
    other = tiny_model("llama", vocab_size=TINY_VOCAB)
    session = tiny().session(max_length=32).native
    session.keep_logits(0, True)
    session.prefill(0, np.array([1, 2, 3], np.int32))
    wrong = logits(other, [1, 2, 3])[-1]
    assert np.abs(session.prefill_logits() - wrong).max() > 0.05 * np.abs(wrong).max()
