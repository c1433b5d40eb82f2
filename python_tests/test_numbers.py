"""Numbers that are not finite: refused in files, reported in a forward. And tiny temperatures."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny, tiny_directory
from safetensors.torch import load_file, save_file

from medusa_ext import generate, load
from medusa_ext.engine.options import Options

PROMPT = [72, 105]


def changed(folder: Path, name: str, values: Any) -> Path:
    """The tiny model with the first numbers of a tensor set to others; None: all times 1e8."""
    shutil.copytree(tiny_directory(), folder)
    tensors = load_file(folder / "model.safetensors")
    tensor = tensors[name].float()
    if values is None:
        tensor *= 1e8
    else:
        tensor.view(-1)[: len(values)] = torch.tensor(values)
    save_file(tensors | {name: tensor}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.embed_tokens.weight", "embed"),
        ("model.layers.1.mlp.down_proj.weight", "layers.1.down"),
        ("model.layers.0.self_attn.k_proj.weight", "layers.0.k"),
        ("model.norm.weight", "final_norm"),
        ("model.layers.1.input_layernorm.weight", "layers.1.attn_norm"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_are_finite(name: str, said: str, value: float, tmp_path: Path) -> None:
    folder = changed(tmp_path / "model", name, [0.5, value])
    with pytest.raises(
        ValueError, match=rf"{folder}: {said}: needs finite (weights|numbers), got "
    ):
        load(folder, heads=None)


def test_weights_fit_their_format(tmp_path: Path) -> None:
    folder = changed(tmp_path / "model", "model.embed_tokens.weight", None)
    need = "embed: needs weights that float16 holds, of at most 65504, got "
    with pytest.raises(ValueError, match=need):
        load(folder, heads=None, dtype="float16")
    for dtype in ("float32", "bfloat16"):
        assert len(generate(load(folder, heads=None, dtype=dtype), PROMPT, 4).tokens) == 4


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 1}, {"tree": None}])
def test_a_forward_says_where_numbers_end(options: dict[str, Any], tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    model = load(changed(tmp_path / "model", name, [3e38] * 96), heads=None, dtype="float32")
    with pytest.raises(RuntimeError, match=r"^logits: need finite numbers; layer 1 is the first"):
        generate(model, PROMPT * 20, 12, ignore_eos=True, **options)


@pytest.mark.parametrize("temperature", [1e-31, 1e-45, 1e-300, 5e-324])
def test_temperatures_too_small_for_float32_are_greedy(temperature: float) -> None:
    assert Options.checked(temperature=temperature).temperature == 0.0
    greedy = generate(tiny(), PROMPT, 12, ignore_eos=True)
    cold = generate(tiny(), PROMPT, 12, ignore_eos=True, temperature=temperature)
    assert cold.tokens == greedy.tokens and cold.seed is None
