"""Configurations from config.json and GGUF metadata: what they say, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from loading_models import CLASSES, SIZES, tiny_model, write_gguf

from medusa_ext.checkpoints.config import LayerSpec, ModelConfig
from medusa_ext.checkpoints.read_config import config_from_directory, config_from_json
from medusa_ext.checkpoints.source import open_source

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "eos_token_id": 2,
    "bos_token_id": 1,
} | SIZES
LLAMA3_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def parsed(**changes: Any) -> ModelConfig:
    return config_from_json(LLAMA | changes, "config.json")


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_config_saved_by_transformers(family: str, tmp_path: Path) -> None:
    config_class, _ = CLASSES[family]
    saved = config_class(**SIZES, eos_token_id=[5, 6], bos_token_id=4, tie_word_embeddings=True)
    saved.save_pretrained(tmp_path)
    config = config_from_directory(tmp_path)
    head_size = 128 if family == "qwen3" else 16
    sizes = (config.num_layers, config.hidden_size, config.ffn_size, config.vocab_size)
    assert config.family == family and sizes == (2, 64, 128, 96)
    assert (config.num_query_heads, config.num_kv_heads, config.head_size) == (4, 2, head_size)
    assert config.rms_eps == saved.rms_norm_eps and config.tied_embeddings
    assert config.ropes[0].theta == saved.rope_parameters["rope_theta"]
    assert config.eos_ids == (5, 6) and config.bos_id == 4
    window = 4096 if family == "mistral" else 0
    layer = LayerSpec(window, qkv_bias=family == "qwen2", qk_norm=family == "qwen3")
    assert config.layers == (layer,) * 2


def test_end_tokens_of_both_configs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert config_from_directory(tmp_path).eos_ids == (2,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9, 7]}))
    assert config_from_directory(tmp_path).eos_ids == (7, 9, 2)


@pytest.mark.parametrize(
    ("ends", "kept"),
    [(96, ()), (-1, ()), ([1, "x"], (1,)), ("</s>", ()), (True, ()), ([[3]], ()), ({"a": 1}, ())],
)
def test_end_tokens_that_are_none_are_left_out(
    caplog: pytest.LogCaptureFixture, ends: Any, kept: tuple[int, ...]
) -> None:
    assert parsed(eos_token_id=ends).eos_ids == kept
    (record,) = caplog.records
    assert "config.json: eos_token_id: needs token ids in [0, 96)" in record.message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"eos_token_id": [7,}', "\ufffe", "null"])
def test_damaged_generation_configs_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "generation_config.json").write_text(text)
    assert config_from_directory(tmp_path).eos_ids == (2,)
    assert "generation_config.json" in caplog.text


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 4.0},
        LLAMA3_ROPE,
    ],
)
@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_scaling"])
def test_frequencies_equal_those_of_transformers(rope: dict[str, Any], spelling: str) -> None:
    theta = 500000.0
    options: dict[str, Any] = {**SIZES, "rope_parameters": rope | {"rope_theta": theta}}
    reference = transformers.LlamaConfig(**options)
    wanted = transformers.LlamaForCausalLM(reference).model.rotary_emb.inv_freq
    if spelling == "rope_parameters":
        config = parsed(rope_parameters=rope | {"rope_theta": theta})
    else:
        old = {("type" if k == "rope_type" else k): v for k, v in rope.items()}
        config = parsed(rope_scaling=old, rope_theta=theta)
    torch.testing.assert_close(
        torch.from_numpy(config.inverse_frequencies[0]).float(), wanted, rtol=1e-6, atol=0
    )


def test_sliding_window_follows_the_family() -> None:
    window = {"sliding_window": 32}
    assert parsed(**window).layers[0].window == 0
    mistral = parsed(model_type="mistral", **window)
    assert [mistral.layers[i].window for i in range(2)] == [32, 32]
    assert parsed(model_type="mistral", sliding_window=None).layers[0].window == 0
    for family in ("qwen2", "qwen3"):
        assert parsed(model_type=family, max_window_layers=1, **window).layers[1].window == 0
        used = window | {"use_sliding_window": True, "model_type": family}
        config = parsed(max_window_layers=1, **used)
        assert [config.layers[i].window for i in range(2)] == [0, 32]
        types = ["sliding_attention", "full_attention"]
        config = parsed(layer_types=types, **used)
        assert [config.layers[i].window for i in range(2)] == [32, 0]


def test_layers_without_positions() -> None:
    smollm3 = parsed(model_type="smollm3", no_rope_layers=[0, 1])
    assert [layer.rope for layer in smollm3.layers] == [1, 0]
    assert not smollm3.inverse_frequencies[1].any() and smollm3.inverse_frequencies[0].all()
    types = ["full_attention", "sliding_attention"]
    exaone = parsed(model_type="exaone4", sliding_window=8, layer_types=types)
    assert [(layer.rope, layer.window) for layer in exaone.layers] == [(1, 0), (0, 8)]
    plain = parsed(model_type="exaone4", sliding_window=None)
    assert plain.layers == (LayerSpec(qk_norm=True, pre_norm=False, post_norm=True),) * 2


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "gpt2"}, "model_type.*supported architecture.*'gpt2'"),
    ({"model_type": None}, "model_type.*a string"),
    ({"hidden_act": "gelu"}, "hidden_act.*'silu'.*'gelu'"),
    ({"attention_bias": True}, "attention_bias.*o_proj"),
    ({"mlp_bias": True}, "mlp_bias"),
    ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config.*'gptq'"),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling: type.*'yarn'"),
    ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_parameters: rope_type.*'dynamic'"),
    ({"rope_parameters": LLAMA3_ROPE | {"high_freq_factor": 0.5}}, "high_freq_factor"),
    ({"rope_scaling": {"type": "linear"}}, "factor.*None"),
    ({"rope_scaling": "linear"}, "rope_scaling.*an object"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"num_local_experts": 8}, "num_local_experts.*mixture"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "architectures.*causal"),
    ({"architectures": "LlamaForCausalLM"}, "architectures.*a list"),
    ({"num_hidden_layers": 0}, r"num_hidden_layers.*\[1, 1024\].*0"),
    ({"num_hidden_layers": -2}, "num_hidden_layers.*-2"),
    ({"num_hidden_layers": 10**30}, "num_hidden_layers"),
    ({"num_hidden_layers": "32"}, "num_hidden_layers.*'32'"),
    ({"num_hidden_layers": True}, "num_hidden_layers.*True"),
    ({"num_hidden_layers": 2.5}, "num_hidden_layers.*2.5"),
    ({"hidden_size": None}, "hidden_size.*None"),
    ({"hidden_size": 63}, "hidden_size.*multiple of the 4.*63"),
    ({"num_key_value_heads": 3}, "key/value heads.*divisor of the 4.*3"),
    ({"head_dim": 15}, "head size.*even.*15"),
    ({"vocab_size": 1 << 40}, "vocab_size"),
    ({"rms_norm_eps": 0.0}, "rms_norm_eps"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps.*nan"),
    ({"rms_norm_eps": float("inf")}, "rms_norm_eps.*inf"),
    ({"rope_theta": -1.0}, "rope_theta.*-1.0"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings.*true or false"),
    ({"model_type": "mistral", "sliding_window": -1}, "sliding_window.*-1"),
    ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers.*2 of 0 and 1"),
    ({"model_type": "smollm3", "use_sliding_window": True}, "use_sliding_window.*false"),
    ({"model_type": "ernie4_5", "use_bias": True}, "use_bias.*o_proj"),
    (
        {
            "model_type": "qwen2",
            "use_sliding_window": True,
            "sliding_window": 8,
            "layer_types": ["full_attention"],
        },
        "layer_types.*2 of",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_refused_configs_name_file_key_need_and_value(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^config.json.*{message}"):
        parsed(**changes)


def test_refusal_comes_before_any_weight_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"model_type": "gemma3"}))
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=r"model_type.*'gemma3'"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1, 2]", "a JSON object"),
        (b'{"model_type": "llama"', "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_files_that_are_not_json_objects(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        config_from_directory(tmp_path)
    assert "config.json" in str(caught.value)


def test_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        open_source(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_source(tmp_path / "nowhere")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_gguf_config_equals_the_directorys(family: str, tmp_path: Path) -> None:
    model = tiny_model(family, tie_word_embeddings=family == "llama", eos_token_id=2)
    model.config.bos_token_id = None
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    write_gguf(tmp_path / "model.gguf", model)
    wanted = config_from_directory(tmp_path)
    found = open_source(tmp_path / "model.gguf").config
    assert found.rms_eps == pytest.approx(wanted.rms_eps)
    for name in wanted.__dataclass_fields__:
        if name != "rms_eps":
            assert getattr(found, name) == getattr(wanted, name), name


def test_gguf_rope_factors_and_scaling(tmp_path: Path) -> None:
    model = tiny_model("llama")
    factors = np.linspace(1.0, 8.0, 8, dtype=np.float32)
    write_gguf(tmp_path / "a.gguf", model, rope_freqs=factors)
    config = open_source(tmp_path / "a.gguf").config
    plain = parsed(rope_theta=config.ropes[0].theta).inverse_frequencies[0]
    np.testing.assert_allclose(config.inverse_frequencies[0], plain / factors, rtol=1e-12)
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    write_gguf(tmp_path / "b.gguf", model, extra=linear)
    config = open_source(tmp_path / "b.gguf").config
    np.testing.assert_allclose(config.inverse_frequencies[0], plain / 4.0, rtol=1e-12)
    for name, values in (("c", factors[:-1]), ("d", -factors)):
        write_gguf(tmp_path / f"{name}.gguf", model, rope_freqs=values)
        with pytest.raises(ValueError, match=f"{name}.gguf: rope"):
            open_source(tmp_path / f"{name}.gguf")


@pytest.mark.parametrize(
    ("family", "extra", "message"),
    [
        ("gemma", {}, "general.architecture.*'gemma'"),
        ("llama", {"llama.expert_count": 8}, "llama.expert_count.*mixture"),
        ("llama", {"split.count": 3}, "split.count.*one file.*3"),
        ("llama", {"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type.*'yarn'"),
        ("llama", {"llama.rope.dimension_count": 8}, "rope.dimension_count.*head size 16.*8"),
        ("llama", {"llama.vocab_size": 97}, "llama.vocab_size.*at most the 96"),
    ],
)
def test_refused_ggufs(family: str, extra: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, tiny_model("llama"), family=family, extra=extra)
    with pytest.raises(ValueError, match=rf"model\.gguf.*{message}"):
        open_source(path)


def test_gguf_sliding_window_and_end_tokens(tmp_path: Path) -> None:
    extra = {"llama.attention.sliding_window": 48, "tokenizer.ggml.eot_token_id": 9}
    write_gguf(tmp_path / "model.gguf", tiny_model("llama"), extra=extra)
    config = open_source(tmp_path / "model.gguf").config
    assert config.layers[0].window == 48 and config.eos_ids == (2, 9)
