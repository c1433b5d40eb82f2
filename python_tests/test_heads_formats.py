"""Each published layout of Medusa heads, written as its projects write it, and loaded."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_models import tiny_model
from safetensors.torch import save_file

from medusa_ext.checkpoints import check_against_base, load_heads, open_source

HIDDEN = 64
VOCAB = 96
Tensors = dict[str, torch.Tensor]


def resblocks(template: str, heads: int = 3, layers: int = 1, bias: bool = True) -> Tensors:
    """Random ResBlock tensors; the template has {h}, {l} and {field}."""
    generator = torch.Generator().manual_seed(heads * 10 + layers)
    tensors = {}
    for h in range(heads):
        for layer in range(layers):
            name = template.format(h=h, l=layer, field="weight")
            tensors[name] = torch.randn(HIDDEN, HIDDEN, generator=generator)
            if bias:
                name = template.format(h=h, l=layer, field="bias")
                tensors[name] = torch.randn(HIDDEN, generator=generator)
    return tensors


def lm_heads(template: str, heads: int = 3, rows: int = VOCAB) -> Tensors:
    generator = torch.Generator().manual_seed(99)
    return {
        template.format(h=h): torch.randn(rows, HIDDEN, generator=generator) for h in range(heads)
    }


def write(
    directory: Path, tensors: Tensors, config: dict[str, Any] | None, name: str = "medusa_lm_head"
) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / f"{name}.safetensors")
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    return directory


def assert_blocks(heads: Any, tensors: Tensors, template: str) -> None:
    for h, head in enumerate(heads.blocks):
        for layer, block in enumerate(head):
            for field in ("weight", "bias"):
                wanted = tensors.get(template.format(h=h, l=layer, field=field))
                found = getattr(block, field)
                assert (found is None) == (wanted is None)
                if found is not None and wanted is not None:
                    assert torch.equal(found, wanted)


V1 = "{h}.{l}.linear.{field}"


@pytest.mark.parametrize("container", ["pt", "safetensors"])
@pytest.mark.parametrize("layers", [1, 2])
def test_v01_counts_from_the_tensors(container: str, layers: int, tmp_path: Path) -> None:
    """The published files say 2 heads in config.json and hold 5."""
    tensors = resblocks(V1, 5, layers) | lm_heads(f"{{h}}.{layers}.weight", 5)
    tensors = {n: t.to(torch.bfloat16) for n, t in tensors.items()}
    config = {
        "base_model_name_or_path": "lmsys/vicuna-7b-v1.3",
        "medusa_num_heads": 2,
        "medusa_num_layers": layers,
    }
    write(tmp_path, tensors, config)
    if container == "pt":
        (tmp_path / "medusa_lm_head.safetensors").unlink()
        torch.save(OrderedDict(tensors), tmp_path / "medusa_lm_head.pt")
    heads = load_heads(tmp_path)
    assert (heads.layout, heads.kind, heads.num_heads, heads.num_layers) == (
        *("v0.1", "medusa", 5),
        layers,
    )
    assert heads.base_name == "lmsys/vicuna-7b-v1.3" and heads.hidden_size == HIDDEN
    assert_blocks(heads, tensors, V1)
    assert heads.lm_heads is not None and not heads.merged
    for h, matrix in enumerate(heads.lm_heads):
        assert torch.equal(matrix, tensors[f"{h}.{layers}.weight"])
    assert len(heads.warnings) == 1
    assert "config.json: medusa_num_heads says 2, the tensors have 5" in heads.warnings[0]
    names = [name for name, _ in heads.tensors()]
    assert names[:2] == ["0.0.weight", "0.0.bias"] and names[-1] == "4.lm_head"


def test_reused_blocks_stored_once_are_applied_each_time(tmp_path: Path) -> None:
    """`[ResBlock] * 3` is one module, of which safetensors keeps one copy."""
    tensors = resblocks(V1, 2, 1) | lm_heads("{h}.3.weight", 2)
    heads = load_heads(write(tmp_path, tensors, {"medusa_num_layers": 3}))
    assert heads.num_layers == 3
    for h, head in enumerate(heads.blocks):
        assert all(torch.equal(b.weight, tensors[f"{h}.0.linear.weight"]) for b in head)
    assert any("applied 3 times" in w for w in heads.warnings)


@pytest.mark.parametrize("container", ["safetensors", "bin"])
def test_merged_v10(container: str, tmp_path: Path) -> None:
    """A whole model in shards with the heads among them; no medusa keys in config.json."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    template = "medusa_head.{h}.{l}.linear.{field}"
    tensors = resblocks(template) | lm_heads("medusa_head.{h}.1.weight")
    state = {n: t.clone() for n, t in model.state_dict().items()} | tensors
    names = sorted(state)
    suffix = "safetensors" if container == "safetensors" else "bin"
    stem = "model" if container == "safetensors" else "pytorch_model"
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"{stem}-0000{number}-of-00002.{suffix}"
        weight_map |= dict.fromkeys(part, shard)
        members = {n: state[n] for n in part}
        if container == "safetensors":
            save_file(members, tmp_path / shard)
        else:
            torch.save(members, tmp_path / shard)
    index = tmp_path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    heads = load_heads(tmp_path)
    assert heads.layout == "v1.0" and heads.merged and heads.num_heads == 3
    assert_blocks(heads, tensors, template)
    assert heads.lm_heads is not None
    assert torch.equal(heads.lm_heads[2], tensors["medusa_head.2.1.weight"])
    assert any("belong to the base model in the same directory" in w for w in heads.warnings)
    source = open_source(tmp_path)
    assert heads.base_fingerprint == source.fingerprint
    assert check_against_base(heads, source.config, source.fingerprint) == []
    other = tiny_model("llama", num_hidden_layers=1)
    other.save_pretrained(tmp_path / "other")
    other_source = open_source(tmp_path / "other")
    warnings = check_against_base(heads, other_source.config, other_source.fingerprint)
    assert len(warnings) == 1 and "made for another base" in warnings[0]


@pytest.mark.parametrize("version", ["2", 2, 2.0])
def test_shared_lm_head(version: Any, tmp_path: Path) -> None:
    """Version 2; LoRAX writes the version as a number."""
    config = {"version": version, "medusa_num_heads": 3, "medusa_num_layers": 2}
    tensors = resblocks(V1, 3, 2)
    heads = load_heads(write(tmp_path, tensors, config))
    assert (heads.layout, heads.num_heads, heads.num_layers) == ("v2", 3, 2)
    assert heads.lm_heads is None and heads.warnings == ()
    assert_blocks(heads, tensors, V1)
    assert [n for n, _ in heads.tensors()][-1] == "2.1.bias"


def test_tgi_without_version_is_told_by_the_tensors(tmp_path: Path) -> None:
    config = {"medusa_num_heads": 3, "base_model_name_or_path": "x/y"}
    shared = load_heads(write(tmp_path / "a", resblocks(V1), config))
    assert shared.layout == "v2" and shared.warnings == ()
    own = load_heads(write(tmp_path / "b", resblocks(V1) | lm_heads("{h}.1.weight"), config))
    assert own.layout == "v0.1" and own.warnings == ()


def test_version_that_disagrees_with_the_tensors_is_reported(tmp_path: Path) -> None:
    heads = load_heads(write(tmp_path, resblocks(V1), {"version": 1.0}))
    assert heads.layout == "v2" and "version says 1.0" in heads.warnings[0]


def vllm_config(**changes: Any) -> dict[str, Any]:
    config = {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": HIDDEN,
        "vocab_size": VOCAB,
        "num_heads": 3,
        "num_hidden_layers": 1,
        "max_paths": 64,
        "topk": 10,
        "truncated_vocab_size": None,
        "max_seq_len": 2048,
        "medusa_fc_bias": False,
        "original_lm_head": False,
        "logit_scale": 1.0,
    }
    return config | changes


VLLM = "blocks.{h}.layers.{l}.{field}"


@pytest.mark.parametrize("prefix", ["", "medusa_heads."])
def test_vllm_without_biases_warns(prefix: str, tmp_path: Path) -> None:
    tensors = resblocks(VLLM, bias=False) | lm_heads("lm_heads.{h}.weight")
    stored = {prefix + n: t for n, t in tensors.items()}
    heads = load_heads(write(tmp_path, stored, vllm_config(), "model"))
    assert heads.layout == "vllm" and heads.num_heads == 3
    assert_blocks(heads, tensors, VLLM)
    assert heads.vocab_size == VOCAB and heads.lm_heads is not None and len(heads.lm_heads) == 3
    assert len(heads.warnings) == 1 and "without biases" in heads.warnings[0]


def test_vllm_with_biases_and_one_lm_head(tmp_path: Path) -> None:
    tensors = resblocks(VLLM, layers=2) | lm_heads("lm_heads.{h}.weight", 1)
    config = vllm_config(medusa_fc_bias=True, original_lm_head=True, num_hidden_layers=2)
    heads = load_heads(write(tmp_path, tensors, config, "model"))
    assert_blocks(heads, tensors, VLLM)
    assert heads.num_layers == 2 and heads.warnings == ()
    assert heads.lm_heads is not None and len(heads.lm_heads) == 1
    assert [n for n, _ in heads.tensors()][-1] == "lm_head"


def test_vllm_truncated_vocabulary(tmp_path: Path) -> None:
    tensors = resblocks(VLLM) | lm_heads("lm_heads.{h}.weight", rows=20)
    config = vllm_config(medusa_fc_bias=True, truncated_vocab_size=20)
    with pytest.raises(ValueError, match=r"model\.safetensors.*token_map.*20"):
        load_heads(write(tmp_path / "a", tensors, config, "model"))
    tensors["token_map"] = torch.randperm(VOCAB)[:20]
    heads = load_heads(write(tmp_path / "b", tensors, config, "model"))
    assert heads.token_map is not None and heads.token_map.dtype == torch.int32
    assert torch.equal(heads.token_map.long(), tensors["token_map"])
    for bad, message in (
        (torch.zeros(20, dtype=torch.int64), "distinct"),
        (torch.arange(19), r"one id per row.*20.*19"),
        (torch.arange(20) - 1, r"ids in \[0"),
        (torch.arange(20).float(), "integer"),
    ):
        tensors["token_map"] = bad
        with pytest.raises(ValueError, match=rf"token map.*{message}"):
            load_heads(write(tmp_path / "c", tensors, config, "model"))


def test_modelopt_fp8(tmp_path: Path) -> None:
    template = "medusa_heads.{h}.{l}.linear.{field}"
    floats = resblocks(template) | lm_heads("medusa_heads.{h}.1.weight")
    tensors: Tensors = {}
    wanted: Tensors = {}
    for name, tensor in floats.items():
        if name.endswith("bias"):
            tensors[name] = wanted[name] = tensor.to(torch.bfloat16)
            continue
        scale = tensor.abs().max() / 448.0
        tensors[name] = (tensor / scale).to(torch.float8_e4m3fn)
        tensors[name + "_scale"] = scale
        tensors[name.removesuffix("weight") + "input_scale"] = torch.tensor(1.0)
        wanted[name] = (tensors[name].float() * scale).to(torch.bfloat16)
    base = {"model.norm.weight": torch.ones(HIDDEN), "lm_head.weight": torch.ones(VOCAB, HIDDEN)}
    config = {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": HIDDEN,
        "medusa": {"num_medusa_heads": 3, "num_medusa_layers": 1},
    }
    heads = load_heads(write(tmp_path, tensors | base, config, "model"))
    assert heads.layout == "modelopt" and heads.num_heads == 3 and heads.warnings == ()
    assert_blocks(heads, wanted, template)
    assert heads.lm_heads is not None
    for h, matrix in enumerate(heads.lm_heads):
        assert torch.equal(matrix, wanted[f"medusa_heads.{h}.1.weight"])
    error = (wanted["medusa_heads.0.1.weight"].float() - floats["medusa_heads.0.1.weight"]).abs()
    assert error.max() < 0.15
    del tensors["medusa_heads.1.0.linear.weight_scale"]
    with pytest.raises(ValueError, match=r"scale of 'medusa_heads\.1\.0\.linear\.weight'"):
        load_heads(write(tmp_path, tensors, config, "model"))


def test_tensorrt_llm_names(tmp_path: Path) -> None:
    template = "medusa_heads.{h}.medusa_layers.{l}.linear.{field}"
    tensors = resblocks(template, layers=2) | lm_heads("medusa_heads.{h}.lm_head.weight")
    heads = load_heads(write(tmp_path, tensors, None))
    assert (heads.layout, heads.num_heads, heads.num_layers) == ("modelopt", 3, 2)
    assert_blocks(heads, tensors, template)
    assert heads.lm_heads is not None
    assert torch.equal(heads.lm_heads[1], tensors["medusa_heads.1.lm_head.weight"])


def test_mlc(tmp_path: Path) -> None:
    template = "medusa_head.{h}.{l}.linear.{field}"
    tensors = resblocks(template) | lm_heads("medusa_head.{h}.1.weight")
    heads = load_heads(write(tmp_path, tensors, {"model_type": "medusa"}))
    assert heads.layout == "mlc" and not heads.merged and heads.warnings == ()
    assert_blocks(heads, tensors, template)


def test_frspec_sliced_lm_heads(tmp_path: Path) -> None:
    template = "medusa.{h}.{l}.linear.{field}"
    tensors = resblocks(template) | lm_heads("medusa.{h}.1.weight", rows=24)
    remap = torch.randperm(VOCAB)[:24]
    for name in ("token_id_remap", "medusa.token_id_remap"):
        heads = load_heads(write(tmp_path / name, tensors | {name: remap}, {}))
        assert heads.layout == "v0.1" and heads.token_map is not None
        assert torch.equal(heads.token_map.long(), remap)
        assert_blocks(heads, tensors, template)


def test_lepton(tmp_path: Path) -> None:
    config = {
        "base_model_name_or_path": "N/A",
        "decoding_strategy": "tree_decoding",
        "medusa_num_heads": 3,
        "medusa_num_layers": 1,
    }
    heads = load_heads(write(tmp_path, resblocks(V1) | lm_heads("{h}.1.weight"), config))
    assert heads.layout == "v0.1" and heads.base_name == "N/A" and heads.warnings == ()


def test_base_of_other_sizes_is_an_error_naming_both(tmp_path: Path) -> None:
    tensors = resblocks(V1) | lm_heads("{h}.1.weight")
    heads = load_heads(write(tmp_path / "heads", tensors, {}))
    for option, message in (
        ({"hidden_size": 128}, "hidden size of the heads.*128.*64"),
        ({"vocab_size": 100}, "vocabulary of the heads.*100.*96"),
    ):
        tiny_model("llama", **option).save_pretrained(tmp_path / "base")
        config = open_source(tmp_path / "base").config
        with pytest.raises(ValueError, match=message):
            check_against_base(heads, config)
    tensors = resblocks(V1) | lm_heads("{h}.1.weight", rows=2)
    tensors["token_id_remap"] = torch.tensor([3, 100])
    mapped = load_heads(write(tmp_path / "mapped", tensors, {}))
    assert check_against_base(mapped, _with_vocab(tmp_path, 101)) == []
    with pytest.raises(ValueError, match=r"token map.*vocabulary of 100.*100"):
        check_against_base(mapped, _with_vocab(tmp_path, 100))


def _with_vocab(tmp_path: Path, vocab: int) -> Any:
    tiny_model("llama", vocab_size=vocab).save_pretrained(tmp_path / "base")
    return open_source(tmp_path / "base").config


class Code:
    """A pickle that runs a command when it is loaded carelessly."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("container", ["zip", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(container: str, tmp_path: Path) -> None:
    path, proof = tmp_path / "medusa_lm_head.pt", tmp_path / "ran"
    if container == "zip":
        torch.save({"0.0.linear.weight": Code(proof)}, path)
    else:
        path.write_bytes(pickle.dumps(Code(proof)))
    with pytest.raises(ValueError, match=r"medusa_lm_head\.pt"):
        load_heads(tmp_path)
    assert not proof.exists()


def test_tensors_larger_than_their_storage_are_refused(tmp_path: Path) -> None:
    """A few bytes expanded to terabytes by strides of zero."""
    huge = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save({"0.0.linear.weight": huge}, tmp_path / "medusa_lm_head.pt")
    with pytest.raises(ValueError, match=r"0\.0\.linear\.weight.*4398046511104 bytes"):
        load_heads(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1.0.linear.weight": None}, "ResBlock 0 of head 1"),
        ({"1.0.linear.weight": (HIDDEN, 32)}, r"weight of block 0 of head 1.*\[64, 32\]"),
        ({"1.0.linear.bias": (32,)}, r"bias of block 0 of head 1.*\[32\]"),
        ({"1.1.weight": None}, "lm heads.*head 1"),
        ({"1.1.weight": (VOCAB + 1, HIDDEN)}, "lm_head of head 1"),
        ({"1.1.weight": (VOCAB, 32)}, "lm_head of head 1"),
        ({"1.2.weight": (VOCAB, HIDDEN)}, "lm heads.*same index"),
        ({"5000000.0.linear.weight": (HIDDEN, HIDDEN)}, "head and layer numbers"),
    ],
)
def test_damaged_sets_of_tensors(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    tensors = resblocks(V1) | lm_heads("{h}.1.weight")
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=rf"medusa_lm_head\.safetensors.*{message}"):
        load_heads(write(tmp_path, tensors, {}))


def test_no_heads_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="medusa_lm_head"):
        load_heads(tmp_path)
    write(tmp_path, {"model.norm.weight": torch.ones(4)}, {})
    with pytest.raises(ValueError, match=r"Medusa heads.*model\.norm"):
        load_heads(tmp_path)
    with pytest.raises(ValueError, match="type of"):
        load_heads(write(tmp_path, {"0.0.linear.weight": torch.ones(4, 4).int()}, {}))
