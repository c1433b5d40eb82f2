"""The benchmarks on a tiny model: every row is there and makes sense. Nothing is timed against."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from benchmarks.rows import Row, interleaved
from benchmarks.setting import Sizes
from medusa_ext import _C

gguf = pytest.importorskip("gguf")

LAYERS, HIDDEN, HEADS, KV_HEADS, FFN = 2, 64, 2, 1, 96
TINY = Sizes(
    repeats=1,
    prompt_tokens=4,
    new_tokens=6,
    context=16,
    rows=(1, 2, 8, 16),
    prefill_tokens=20,
    attention_context=64,
    prompts_per_set=1,
    prompt_new_tokens=6,
    batch_new_tokens=4,
    requests=6,
    slots=2,
    long_prompt=60,
    quality_tokens=512,
    server_drafts=(0, 3),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny models with the default model's tokenizer, in every storage type."""
    from benchmarks.gguf_files import restore
    from medusa_ext.checkpoints import resolve_model

    folder = tmp_path_factory.mktemp("gguf")
    base = folder / "base.gguf"
    write_tiny(resolve_model("smollm2-135m-instruct"), base)

    def made(storage: str) -> Path:
        target = folder / f"tiny.{storage}.gguf"
        if not target.is_file():
            restore(base, target, storage)
        return target

    return made


def write_tiny(like: Path, target: Path) -> None:
    """A model of the sizes above, with the metadata of the file `like`."""
    sizes = {
        "llama.block_count": LAYERS,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.dimension_count": HIDDEN // HEADS,
    }
    reader = gguf.GGUFReader(like)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        value = sizes.get(field.name, field.contents())
        writer.add_key_value(field.name, value, field.types[0], inner)
    random = np.random.default_rng(0)
    kv = HIDDEN // HEADS * KV_HEADS
    vocab = len(reader.fields["tokenizer.ggml.tokens"].contents())
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocab, HIDDEN),
        "output_norm.weight": (HIDDEN,),
    }
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (HIDDEN,),
            f"blk.{i}.ffn_norm.weight": (HIDDEN,),
            f"blk.{i}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{i}.attn_k.weight": (kv, HIDDEN),
            f"blk.{i}.attn_v.weight": (kv, HIDDEN),
            f"blk.{i}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{i}.ffn_gate.weight": (FFN, HIDDEN),
            f"blk.{i}.ffn_up.weight": (FFN, HIDDEN),
            f"blk.{i}.ffn_down.weight": (HIDDEN, FFN),
        }
    for name, shape in shapes.items():
        values = np.ones(shape) if len(shape) == 1 else random.normal(0, 0.05, shape)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def report(files: Callable[[str], Path]) -> Any:
    """One run of everything on one thread."""
    pytest.importorskip("xllamacpp")
    from benchmarks.cpu import measure_cpu

    before = _C.num_threads()
    _C.set_num_threads(1)
    try:
        return measure_cpu(files=files, sizes=TINY)
    finally:
        _C.set_num_threads(before)


def test_every_row_of_the_table_is_there(report: Any) -> None:
    found = {(row.section, row.what) for row in report.rows}
    assert len(found) == len(report.rows)
    formats = ["float32", "float16", "bfloat16", "int8", "int4 (Q4_0)", "int4 (Q4_1)"]
    for name in formats:
        assert ("decode", f"{name}: share of DRAM read bandwidth") in found
        for rows in (2, 8, 16):
            assert ("rows", f"{name}: {rows} rows over one") in found
        assert any(s == "prefill" and w.startswith(f"{name}: 20 tokens against") for s, w in found)
    for name, storage in (
        ("float32", "F32"),
        ("float16", "F16"),
        ("int8", "Q8_0"),
        ("int4 (Q4_0)", "Q4_0"),
        ("int4 (Q4_1)", "Q4_1"),
    ):
        assert ("decode", f"{name}: against llama.cpp {storage}") in found
        for rows in (8, 16):
            assert ("rows", f"{name}: {rows} rows against llama.cpp {storage}") in found
    count = {section: sum(row.section == section for row in report.rows) for section, _ in found}
    assert count["arithmetic"] == 3
    assert count["rest"] == 3
    assert count["overhead"] == 2
    assert count["attention"] == 2
    assert count["memory"] == 3
    assert count["fastest"] >= 1
    assert count["batches"] == 10
    assert count["requests"] == 2
    assert count["quality"] == 2


def test_figures_make_sense(report: Any) -> None:
    for row in report.rows:
        assert row.value is not None and math.isfinite(row.value), row
        # What memory takes beyond weights and cache may be less than nothing.
        assert row.value > 0 or row.section == "memory", row
        assert all(math.isfinite(value) for value in row.details.values()), row
    assert report.limits.read > 0
    assert set(report.limits.peaks) == {"float32", "int8", "int4"}
    assert set(report.limits.products) == set(report.limits.peaks)
    assert all(rate > 0 for rate in report.limits.products.values())
    rest = [row.value for row in report.rows if row.section == "rest"]
    assert all(0 < value < 1 for value in rest)
    quality = next(row for row in report.rows if row.section == "quality")
    # Random weights know nothing: every token is about as likely.
    assert 0.5 < quality.details["float32"] / 49152 < 2
    assert quality.details["int4"] == pytest.approx(quality.details["llama.cpp Q4_1"], rel=0.02)


def test_report_and_json(report: Any) -> None:
    from benchmarks.report import markdown, table

    values = json.loads(json.dumps(report.to_json()))
    assert len(values["rows"]) == len(report.rows)
    page = markdown(report)
    for row in report.rows:
        assert row.what in page
        assert row.what in table(report)
    assert report.machine["processor"] in page
    assert "GB/s" in page and "GFLOP/s" in page


def test_only_some_sections(files: Callable[[str], Path]) -> None:
    pytest.importorskip("xllamacpp")
    from benchmarks.cpu import measure_cpu

    found = measure_cpu(files=files, sizes=TINY, only=("overhead",))
    assert {row.section for row in found.rows} == {"overhead"}
    with pytest.raises(ValueError, match=r"--only: needs some of .*decode.*'nonsense'"):
        measure_cpu(files=files, sizes=TINY, only=("nonsense",))


def test_limits_that_cannot_be_measured_are_said_so(
    files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    from benchmarks import limits
    from benchmarks.cpu import measure_cpu

    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(limits.ProbeError, match="cmake: No such file"):
        limits.measure_limits(_C.default_isa(), 1, 1)
    found = measure_cpu(files=files, sizes=TINY, only=("overhead",))
    assert found.limits is None
    assert "cmake: No such file" in found.rows[0].note


def test_bars() -> None:
    assert Row("decode", "a", 0.9, "", 0.8).met is True
    assert Row("decode", "a", 0.7, "", 0.8).met is False
    assert Row("rest", "a", 0.7, "", 0.8, at_most=True).met is True
    assert Row("rest", "a", None, "", 0.8).met is None
    assert Row("rest", "a", 1.0, "").met is None


def test_sides_take_turns() -> None:
    order: list[str] = []

    def side(name: str, figures: list[float]) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return figures.pop(0)

        return run

    found = interleaved({"a": side("a", [3, 1, 2]), "b": side("b", [30, 10, 20])}, 3, lead_in=False)
    assert order == ["a", "b"] * 3
    assert found == {"a": 2, "b": 20}


def test_a_turn_may_begin_with_a_call_that_does_not_count() -> None:
    figures = iter([9.0, 3.0, 9.0, 1.0, 9.0, 2.0])
    assert interleaved({"a": lambda: next(figures)}, 3) == {"a": 2.0}


def test_perplexity_of_known_logits() -> None:
    from benchmarks.quality import perplexity

    windows = np.array([[3, 1, 2, 0]], dtype=np.int32)

    def certain(window: np.ndarray) -> np.ndarray:
        """Gives each next token odds of 3 : 1 against the other three together."""
        logits = np.zeros((len(window) - 1, 4), dtype=np.float32)
        logits[np.arange(len(window) - 2), window[2:]] = math.log(9)
        return logits

    assert perplexity(certain, windows) == pytest.approx(4 / 3)


def test_expected_tokens_of_a_tree() -> None:
    from benchmarks.tree_speed import Acceptance
    from medusa_ext.drafting.trees import Tree

    traces = np.array([[0, 0], [0, 1], [1, 0], [-1, 0]], dtype=np.int16)
    acceptance = Acceptance.of_traces(traces)
    assert acceptance.expected_tokens(Tree([])) == 1
    assert acceptance.expected_tokens(Tree([[0], [0, 1], [1]])) == 1 + 2 / 4 + 1 / 4 + 1 / 4
    published = Acceptance.published(2)
    assert published.expected_tokens(Tree([[0]])) == pytest.approx(1.56)
    assert published.expected_tokens(Tree([[0], [0, 0]])) == pytest.approx(1.56 + 0.56 * 0.316)


def test_trees_bench(files: Callable[[str], Path], tmp_path: Path) -> None:
    from benchmarks.tree_speed import draw, measure_trees
    from medusa_ext.api import load

    found = measure_trees(load(files("Q4_1"), device="cpu"), num_random=2, repeats=1, max_nodes=32)
    kinds = {point.kind for point in found.points}
    assert kinds == {"random dense", "random connected", "optimised sparse"}
    for point in found.points:
        assert 1 <= point.num_nodes <= 32
        assert point.tokens_per_step >= 1 and point.tokens_per_second > 0
    assert found.acceptance.startswith("replay")
    assert json.loads(json.dumps(found.to_json()))["points"]
    pytest.importorskip("matplotlib")
    for name in ("a.png", "a.svg"):
        draw(found, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_distill_bench(files: Callable[[str], Path]) -> None:
    from benchmarks.distill_speed import Setup, measure_distill
    from benchmarks.report import rows_table

    setups = (Setup(3, "int8", ("float32", "bfloat16")),)
    (row,) = measure_distill(str(files("Q4_1")), repeats=1, new_tokens=5, setups=setups)
    assert set(row.details) == {
        "ours, tokens/s",
        "transformers float32, tokens/s",
        "transformers bfloat16, tokens/s",
    }
    theirs = row.details["transformers float32, tokens/s"]
    assert row.value == pytest.approx(row.details["ours, tokens/s"] / theirs)
    text = rows_table([row], details=True)
    assert row.what in text and "ours, tokens/s: " in text


def test_random_dense_trees_stay_within_their_size() -> None:
    from medusa_ext.drafting.trees import random_dense_tree

    random = Random(0)
    assert all(random_dense_tree(32, 4, 10, random).num_nodes <= 32 for _ in range(50))
