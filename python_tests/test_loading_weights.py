"""Weights under canonical names equal the model they were saved from, in every container."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from loading_models import gguf_name, permute, state_name, tiny_model, write_gguf

from medusa_ext.checkpoints import iter_weights, open_source
from medusa_ext.checkpoints.files.weight import GGML_TYPES

FAMILIES = ["llama", "mistral", "qwen2", "qwen3"]


def expected_names(model: Any) -> set[str]:
    state = set(model.state_dict())
    if model.config.tie_word_embeddings:
        state.discard("lm_head.weight")
    return state


def assert_same_weights(path: Path, model: Any, dtype: torch.dtype = torch.float32) -> None:
    state = model.state_dict()
    found = {}
    for name, weight in iter_weights(open_source(path)):
        values = torch.from_numpy(weight.to_float().copy()).reshape(weight.shape)
        wanted = state[state_name(name)].to(dtype).float()
        assert torch.equal(values, wanted), name
        assert weight.shape == tuple(wanted.shape)
        found[state_name(name)] = weight
    assert set(found) == expected_names(model)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_directory_weights_equal_state_dict(family: str, tied: bool, tmp_path: Path) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    assert_same_weights(tmp_path, model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_sharded_directory_in_other_types(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model("llama").to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same_weights(tmp_path, model, dtype)
    raw = {n: w.dtype for n, w in iter_weights(open_source(tmp_path))}
    native = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F16"}
    assert set(raw.values()) == {native[dtype]}


def test_safetensors_are_read_without_torch(tmp_path: Path) -> None:
    tiny_model("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    code = (
        "import sys; from medusa_ext.checkpoints import iter_weights, open_source\n"
        "assert all(weight.rows().size for _, weight in iter_weights(open_source(sys.argv[1])))\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)


def test_pytorch_model_bin_with_and_without_index(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert_same_weights(tmp_path, model)
    (tmp_path / "pytorch_model.bin").unlink()
    names = sorted(state)
    shards = {"a.bin": names[::2], "b.bin": names[1::2]}
    for shard, members in shards.items():
        torch.save({n: state[n] for n in members}, tmp_path / shard)
    weight_map = {n: shard for shard, members in shards.items() for n in members}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert_same_weights(tmp_path, model)


def test_every_missing_and_misshaped_tensor_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    state = {n: t.clone() for n, t in model.state_dict().items()}
    del state["model.layers.1.mlp.up_proj.weight"], state["model.norm.weight"]
    state["lm_head.weight"] = state["lm_head.weight"][:-1].contiguous()
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError) as caught:
        next(iter_weights(open_source(tmp_path)))
    message = str(caught.value)
    assert str(tmp_path) in message and "3 weights" in message
    assert "model.layers.1.mlp.up_proj.weight is missing (needs [128, 64])" in message
    assert "model.norm.weight is missing" in message
    assert "lm_head.weight needs shape [96, 64], got [95, 64]" in message


def test_index_naming_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = "../model.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"index\.json.*lm_head.*beside it"):
        open_source(tmp_path)


MIXED = {
    "attn_q.weight": Type.Q4_0,
    "attn_k.weight": Type.Q8_0,
    "attn_v.weight": Type.Q4_1,
    "attn_output": Type.F16,
    "ffn_gate": Type.BF16,
    "ffn_up": Type.Q5_1,
    "token_embd": Type.Q8_0,
    "output.weight": Type.Q5_0,
}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_gguf_of_mixed_types(family: str, tmp_path: Path, caplog: Any) -> None:
    model = tiny_model(family)
    path = tmp_path / "model.gguf"
    write_gguf(path, model, MIXED)
    state = model.state_dict()
    found = set()
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        weights = list(iter_weights(open_source(path)))
    for name, weight in weights:
        stored = gguf_name(state_name(name))
        kind = next((t for piece, t in MIXED.items() if piece in stored), Type.F32)
        if len(weight.shape) == 1:
            kind = Type.F32
        values = state[state_name(name)].numpy()
        wanted = gguf.dequantize(gguf.quantize(values, kind), kind).reshape(values.shape)
        assert weight.storage == kind.name
        np.testing.assert_array_equal(weight.to_float().reshape(weight.shape), wanted, name)
        if kind in (Type.Q5_0, Type.Q5_1):
            assert weight.dtype == "F16"
            half = weight.rows().view(np.float16)
            np.testing.assert_array_equal(half, wanted.astype(np.float16), name)
        elif len(weight.shape) == 2:
            # A quantised row quantises alone: rows in the model's order, byte for byte.
            raw = gguf.quantize(values, kind).view(np.uint8).reshape(values.shape[0], -1)
            np.testing.assert_array_equal(weight.rows(), raw, name)
        found.add(state_name(name))
    assert found == expected_names(model)
    assert [r.message for r in caplog.records] == [
        f"{path}: tensors dequantised to 16 bits: 1 of Q5_0, 2 of Q5_1"
    ]


def test_gguf_rows_by_chunks_equal_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, tiny_model("llama"), MIXED)
    for name, weight in iter_weights(open_source(path)):
        pieces = [weight.rows(a, b) for a, b in weight.chunks(max_bytes=3 * 4 * 64)]
        assert len(pieces) > 1 or weight.num_rows == 1
        np.testing.assert_array_equal(np.concatenate(pieces), weight.rows(), name)
        assert pieces[0].shape[1] == weight.row_bytes
        floats = [weight.to_float(a, b) for a, b in weight.chunks(max_bytes=3 * 4 * 64)]
        np.testing.assert_array_equal(np.concatenate(floats), weight.to_float(), name)


def test_permuted_biases_of_a_llama_gguf(tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    path = tmp_path / "model.gguf"
    state = model.state_dict()
    for layer in range(2):
        for name, heads in (("q_proj", 4), ("k_proj", 2)):
            for field in ("weight", "bias"):
                tensor = state[f"model.layers.{layer}.self_attn.{name}.{field}"]
                tensor.copy_(torch.from_numpy(permute(tensor.numpy().copy(), heads)))
    # Qwen2's tensors under Llama's name: permuted once here, and not again by the writer.
    expected = tiny_model("qwen2").state_dict()
    write_gguf(path, model, family="qwen2")
    raw = path.read_bytes().replace(b"qwen2", b"llama")
    path.write_bytes(raw)
    source = open_source(path)
    assert source.config.family == "llama" and source.config.layers[0].qkv_bias
    for name, weight in iter_weights(source):
        wanted = expected[state_name(name)].numpy()
        np.testing.assert_array_equal(weight.to_float().reshape(weight.shape), wanted, name)


def test_k_quants_dequantise_as_gguf_does(tmp_path: Path) -> None:
    """Random blocks of types that gguf can read but not write."""
    model = tiny_model("llama", hidden_size=256, intermediate_size=256, head_dim=64)
    path = tmp_path / "model.gguf"
    write_gguf(path, model, {"ffn_": Type.Q8_0})
    rng = np.random.default_rng(3)
    for kind in (Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_XS, Type.TQ2_0):
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (5, 2 * size), dtype=np.uint8)
        # Scales are 16-bit floats somewhere in the block: keep every byte pair a small number.
        raw[:, 1::2] &= 0x2F
        weight = next(w for n, w in iter_weights(open_source(path)) if n.endswith("up"))
        tensor = replace(weight, storage=kind.name, shape=(5, 2 * elements), data=raw)
        wanted = gguf.dequantize(raw, kind).astype(np.float32)
        np.testing.assert_array_equal(tensor.to_float(), wanted)
        np.testing.assert_array_equal(tensor.rows().view(np.float16), wanted.astype(np.float16))


def test_values_beyond_half_precision_are_named(tmp_path: Path) -> None:
    model = tiny_model("llama").double()
    model.state_dict()["model.layers.0.mlp.up_proj.weight"][3, 5] = 1e6
    model.save_pretrained(tmp_path)
    weight = dict(iter_weights(open_source(tmp_path)))["layers.0.up"]
    assert weight.rows(4, 6).shape == (2, 128)
    with pytest.raises(ValueError, match=r"mlp\.up_proj\.weight \(F64\).*65504.*rows 2 to 4"):
        weight.rows(2, 4)


def test_type_table_agrees_with_gguf() -> None:
    for number, (name, elements, size) in GGML_TYPES.items():
        assert Type(number).name == name
        assert gguf.GGML_QUANT_SIZES[Type(number)] == (elements, size)


def test_fingerprint_is_the_models_not_the_files(tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "hf")
    write_gguf(tmp_path / "a.gguf", model, MIXED)
    prints = {open_source(tmp_path / n).fingerprint for n in ("hf", "a.gguf")}
    assert len(prints) == 1
    model.state_dict()["model.layers.1.input_layernorm.weight"][0] += 0.5
    model.save_pretrained(tmp_path / "tuned")
    assert open_source(tmp_path / "tuned").fingerprint not in prints


def test_weights_are_views_on_the_file(tmp_path: Path) -> None:
    """Loading copies nothing: two reads of a tensor share memory, for both containers."""
    model = tiny_model("qwen2")
    model.save_pretrained(tmp_path / "hf")
    write_gguf(tmp_path / "a.gguf", model)
    for place in ("hf", "a.gguf"):
        source = open_source(tmp_path / place)
        for (_, a), (_, b) in zip(iter_weights(source), iter_weights(source), strict=True):
            assert np.shares_memory(a.rows(), b.rows())


def test_progress_bar_counts_tensors(tmp_path: Path, capsys: Any) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    count = len(list(iter_weights(open_source(tmp_path), progress=True)))
    assert f"/{count}" in capsys.readouterr().err
