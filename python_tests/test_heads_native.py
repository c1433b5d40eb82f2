"""Our own head format, conversions between formats, and where heads are looked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_models import tiny_model, write_gguf

from medusa_ext.checkpoints import (
    HeadsCheckpoint,
    ResBlock,
    convert,
    load_heads,
    open_source,
    resolve_heads,
    save_heads,
)
from medusa_ext.checkpoints.heads import resolve as heads_resolve

HIDDEN, VOCAB = 64, 96


def random_heads(
    num_heads: int = 3,
    num_layers: int = 2,
    *,
    dtype: torch.dtype = torch.bfloat16,
    lm_heads: int = 0,
    draft_vocab: int = 0,
    kind: str = "medusa",
    traces: bool = False,
    adapters: bool = False,
) -> HeadsCheckpoint:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    blocks = tuple(
        tuple(ResBlock(draw(HIDDEN, HIDDEN), draw(HIDDEN)) for _ in range(num_layers))
        for _ in range(num_heads)
    )
    matrices = tuple(draw(draft_vocab or VOCAB, HIDDEN) for _ in range(lm_heads))
    order = torch.randperm(VOCAB, generator=generator)[:draft_vocab].to(torch.int32)
    roots = tuple(draw(HIDDEN, HIDDEN) for _ in range(num_heads))
    return HeadsCheckpoint(
        path=Path("made-here"),
        layout="v3",
        kind=kind,
        hidden_size=HIDDEN,
        blocks=blocks,
        lm_heads=matrices or None,
        token_map=order if draft_vocab else None,
        root_weights=roots if kind == "root" else None,
        rank_traces=torch.randint(0, 20, (50, num_heads), dtype=torch.int16) if traces else None,
        adapters={"layers.0.q": (draw(4, HIDDEN), draw(HIDDEN, 4))} if adapters else {},
        base_name="some/base",
        base_fingerprint="f" * 32,
        vocab_size=VOCAB,
    )


def assert_same(a: HeadsCheckpoint, b: HeadsCheckpoint) -> None:
    """Everything that decoding uses is equal bit for bit."""
    first, second = dict(a.tensors()), dict(b.tensors())
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name
    assert (a.token_map is None) == (b.token_map is None)
    if a.token_map is not None and b.token_map is not None:
        assert torch.equal(a.token_map, b.token_map)
    for name in ("kind", "hidden_size", "base_name", "base_fingerprint", "vocab_size"):
        assert getattr(a, name) == getattr(b, name), name


EVERYTHING: list[dict[str, Any]] = [
    {},
    {"kind": "root", "traces": True},
    {"draft_vocab": 32},
    {"draft_vocab": 32, "lm_heads": 1},
    {"lm_heads": 3, "adapters": True},
    {"num_heads": 1, "num_layers": 1, "dtype": torch.float16, "kind": "root", "lm_heads": 1},
]


@pytest.mark.parametrize("options", EVERYTHING)
def test_version_3_keeps_everything(options: dict[str, Any], tmp_path: Path) -> None:
    heads = random_heads(**options)
    loaded = load_heads(save_heads(heads, tmp_path))
    assert loaded.layout == "v3" and loaded.warnings == ()
    assert_same(heads, loaded)
    if heads.rank_traces is not None:
        assert loaded.rank_traces is not None
        assert torch.equal(heads.rank_traces, loaded.rank_traces)
    assert set(loaded.adapters) == set(heads.adapters)
    for name, pair in heads.adapters.items():
        assert all(torch.equal(a, b) for a, b in zip(pair, loaded.adapters[name], strict=True))
    # Once more from the loaded views.
    assert_same(heads, load_heads(save_heads(loaded, tmp_path / "again")))


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16", "int8"])
def test_storage_types(storage: str, tmp_path: Path) -> None:
    heads = random_heads(dtype=torch.float32, kind="root", lm_heads=1, draft_vocab=32)
    loaded = load_heads(save_heads(heads, tmp_path, storage))
    for (name, tensor), (_, found) in zip(heads.tensors(), loaded.tensors(), strict=True):
        if name.endswith("bias"):
            assert torch.equal(tensor, found)
        elif storage == "int8":
            # At most half a step of each row's own scale.
            step = tensor.abs().amax(dim=1, keepdim=True) / 127.0
            assert found.dtype == torch.float32
            assert bool(((tensor - found).abs() <= 0.5001 * step).all()), name
        else:
            assert torch.equal(found, tensor.to(getattr(torch, storage))), name
    sizes = {s: save_heads(heads, tmp_path / s, s) for s in ("float32", storage)}
    size = {s: (d / "medusa_lm_head.safetensors").stat().st_size for s, d in sizes.items()}
    share = {"float32": 1.0, "bfloat16": 0.5, "float16": 0.5, "int8": 0.25}[storage]
    assert size[storage] < size["float32"] * share + 12_000


def test_int8_of_a_row_of_zeros(tmp_path: Path) -> None:
    heads = random_heads(1, 1, dtype=torch.float32)
    heads.blocks[0][0].weight[5] = 0.0
    loaded = load_heads(save_heads(heads, tmp_path, "int8"))
    assert torch.equal(loaded.blocks[0][0].weight[5], torch.zeros(HIDDEN))
    with pytest.raises(ValueError, match=r"storage.*'int3'"):
        save_heads(heads, tmp_path, "int3")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "hydra"}, r"kind.*\('medusa', 'root'\).*'hydra'"),
        ({"kind": "medusa"}, "0 root weights"),
        ({"kind": 3}, "kind.*a string"),
        ({"version": "three"}, "version.*a number"),
        ({"vocab_size": -1}, "vocab_size"),
    ],
)
def test_damaged_version_3(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_heads(random_heads(kind="root"), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(ValueError, match=message):
        load_heads(tmp_path)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_round_trips_through_every_plain_format(num_layers: int, tmp_path: Path) -> None:
    base = torch.randn(VOCAB, HIDDEN).to(torch.bfloat16)
    shared = random_heads(num_layers=num_layers)
    v2 = load_heads(convert(shared, "v2", tmp_path / "v2"))
    assert v2.layout == "v2" and v2.warnings == ()
    assert_same(shared, v2)
    for format in ("v0.1", "vllm"):
        there = load_heads(convert(v2, format, tmp_path / format, base_lm_head=base))
        assert there.layout == format and there.warnings == () and there.lm_heads is not None
        assert all(torch.equal(m, base) for m in there.lm_heads)
        back = convert(there, "v2", tmp_path / f"{format}-back", base_lm_head=base)
        assert_same(shared, load_heads(back))
    own = random_heads(num_layers=num_layers, lm_heads=3)
    v01 = load_heads(convert(own, "v0.1", tmp_path / "own-v0.1"))
    vllm = load_heads(convert(v01, "vllm", tmp_path / "own-vllm"))
    assert_same(own, load_heads(convert(vllm, "v0.1", tmp_path / "own-back")))
    assert_same(own, load_heads(convert(vllm, "v3", tmp_path / "own-v3")))


def test_draft_vocabulary_through_vllm(tmp_path: Path) -> None:
    own = random_heads(lm_heads=3, draft_vocab=32)
    assert_same(own, load_heads(convert(own, "vllm", tmp_path / "own")))
    base = torch.randn(VOCAB, HIDDEN).to(torch.bfloat16)
    shared = random_heads(draft_vocab=32)
    loaded = load_heads(convert(shared, "vllm", tmp_path / "shared", base_lm_head=base))
    assert loaded.lm_heads is not None and shared.token_map is not None
    assert torch.equal(loaded.lm_heads[0], base[shared.token_map.long()])
    with pytest.raises(ValueError, match="vocab_size"):
        convert(replace(own, vocab_size=None), "vllm", tmp_path / "none")


def test_reused_block_and_missing_biases_convert(tmp_path: Path) -> None:
    """One block applied twice is stored twice; an absent bias as zeros."""
    heads = random_heads(num_layers=1)
    twice = tuple((b, b) for (b,) in heads.blocks)
    loaded = load_heads(convert(replace(heads, blocks=twice), "v2", tmp_path / "a"))
    assert loaded.num_layers == 2
    assert torch.equal(loaded.blocks[1][1].weight, heads.blocks[1][0].weight)
    bare = tuple(tuple(replace(b, bias=None) for b in head) for head in heads.blocks)
    loaded = load_heads(convert(replace(heads, blocks=bare), "v2", tmp_path / "b"))
    assert loaded.blocks[0][0].bias is not None and not loaded.blocks[0][0].bias.any()


LOSSY: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "root"}, "v2", "conditioning of kind 'root'"),
    ({"kind": "root"}, "v0.1", "conditioning of kind 'root'"),
    ({"kind": "root"}, "vllm", "conditioning of kind 'root'"),
    ({"adapters": True}, "vllm", "adapters of 1 base weights"),
    ({"traces": True}, "v2", r"rank traces \(drop_traces"),
    ({"draft_vocab": 32}, "v2", "token map"),
    ({"draft_vocab": 32, "lm_heads": 3}, "v0.1", "token map"),
    ({"lm_heads": 3}, "v2", "lm heads of its own"),
]


@pytest.mark.parametrize(("options", "format", "message"), LOSSY)
def test_lossy_conversions_name_what_would_be_lost(
    options: dict[str, Any], format: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"{format} heads cannot hold.*{message}"):
        convert(random_heads(**options), format, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_conversions_that_need_more(tmp_path: Path) -> None:
    heads = random_heads(lm_heads=3)
    other = torch.zeros(VOCAB, HIDDEN)
    with pytest.raises(ValueError, match="differ from the base's"):
        convert(heads, "v2", tmp_path, base_lm_head=other)
    with pytest.raises(ValueError, match=r"converting to v0\.1.*base_lm_head"):
        convert(random_heads(), "v0.1", tmp_path)
    with pytest.raises(ValueError, match=r"base_lm_head.*\[vocabulary, 64\]"):
        convert(random_heads(), "vllm", tmp_path, base_lm_head=torch.zeros(VOCAB, 32))
    with pytest.raises(ValueError, match=r"format.*'gguf'"):
        convert(heads, "gguf", tmp_path)
    traced = random_heads(traces=True)
    assert_same(traced, load_heads(convert(traced, "v2", tmp_path / "t", drop_traces=True)))


def test_where_heads_are_looked_for(tmp_path: Path, monkeypatch: Any) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "base")
    write_gguf(tmp_path / "base.gguf", model)
    packaged = tmp_path / "packaged"
    monkeypatch.setattr(heads_resolve, "PACKAGED_HEADS", packaged)
    source, gguf = open_source(tmp_path / "base"), open_source(tmp_path / "base.gguf")
    assert resolve_heads(None, source) is None and resolve_heads("auto", source) is None
    heads = replace(random_heads(), base_fingerprint=source.fingerprint)
    for name in ("default", "medusa-2"):
        save_heads(heads, packaged / "tiny" / name)
    save_heads(random_heads(), packaged / "other" / "default")
    for place in (source, gguf):
        assert resolve_heads("auto", place) == packaged / "tiny" / "default"
        assert resolve_heads("medusa-2", place) == packaged / "tiny" / "medusa-2"
    assert resolve_heads(tmp_path / "base", source) == tmp_path / "base"
    with pytest.raises(FileNotFoundError, match=r"'medusa-9'.*'default', 'medusa-2'"):
        resolve_heads("medusa-9", source)
    beside = convert(random_heads(), "v2", tmp_path / "v2") / "medusa_lm_head.safetensors"
    (tmp_path / "base" / beside.name).write_bytes(beside.read_bytes())
    assert resolve_heads("auto", open_source(tmp_path / "base")) == tmp_path / "base" / beside.name
