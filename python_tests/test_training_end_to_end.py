"""From nothing to faster decoding: distill, train, calibrate and decode with the default model."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from models import tiny_directory, tiny_heads, tiny_with_heads
from training_data import tiny_data

import medusa_ext
from medusa_ext.checkpoints.heads.load import load_heads
from medusa_ext.cli.main import main
from medusa_ext.training.calibration import (
    CalibrationOptions,
    calibrate,
    decode_with_ranks,
    ranks_of,
)
from medusa_ext.training.data.synthetic import template_prompts

MODEL = "smollm2-135m-instruct"


def run(*arguments: object) -> None:
    """A command that must succeed."""
    assert main([str(argument) for argument in arguments]) == 0


def test_from_nothing_to_faster_decoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, trained = tmp_path / "data", tmp_path / "run"
    small = ["--max-new-tokens", 96, "--self-share", 0.1, "--temperature-share", 0]
    run("distill", data, "--tokens", 6000, *small)
    run("train", data, trained, "--epochs", 6, "--batch", 256, "--vocabulary", 4096, "--no-plots")
    capsys.readouterr()
    few = ["--num-prompts", 24, "--max-new-tokens", 64, "--nodes", 8, "--measure-prompts", 6]
    run("calibrate", trained / "heads", *few, "--json")
    report = json.loads(capsys.readouterr().out)
    measured = report["measured"]["8"]
    assert measured["decoded"] == pytest.approx(measured["replayed"], rel=0.01)
    model = medusa_ext.load(MODEL, heads=trained / "heads")
    assert model.calibrated
    messages = [
        [{"role": role, "content": content} for role, content in prompt.messages]
        for prompt in islice(template_prompts(77), 8)
    ]
    drafted = medusa_ext.generate(model, messages, 64, tree=16, draft="heads")
    plain = medusa_ext.generate(model, messages, 64, tree=None)
    assert [result.tokens for result in drafted] == [result.tokens for result in plain]
    steps = sum(result.stats.steps for result in drafted)
    assert sum(len(result.tokens) - 1 for result in drafted) / steps > 1.2


def test_ranks_are_the_places_of_the_tokens_that_follow() -> None:
    guesses = np.array([[[1, 2], [3, 4]], [[2, 9], [7, 8]], [[0, 0], [0, 0]]], np.int32)
    assert ranks_of([5, 2, 3], guesses).tolist() == [[1, 0], [-1, -1], [-1, -1]]


def test_traces_hold_the_ranks_of_real_candidates() -> None:
    model = tiny_with_heads("root")
    prompts = [np.arange(3, 3 + n, dtype=np.int32) for n in (4, 9)]
    options = CalibrationOptions(model="", max_new_tokens=12, num_ranks=32, batch=2)
    for prompt, one in zip(prompts, decode_with_ranks(model, prompts, options), strict=True):
        plain = medusa_ext.generate(model, prompt.tolist(), 12, tree=None)
        assert one.tokens.tolist() == plain.tokens
        for k in range(3):
            assert (one.ranks[len(plain.tokens) - 1 - k :, k] == -1).all()
        session = model.session(1, 64, 1).native
        session.prefill(0, prompt)
        ids, _ = session.head_candidates(model.heads, 32)
        for k in range(min(3, len(plain.tokens) - 1)):
            guesses, true = ids[0, k].tolist(), plain.tokens[1 + k]
            assert one.ranks[0, k] == (guesses.index(true) if true in guesses else -1)


def test_calibration_is_stored_with_the_heads_and_agrees_with_decoding(tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    folder.mkdir()
    for path in tiny_heads("root", 3).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    before = load_heads(folder)
    options = CalibrationOptions(
        model=str(tiny_directory()),
        num_prompts=12,
        max_new_tokens=24,
        sizes=(4, 8),
        measure_prompts=12,
        dtype="float32",
        keep_loops=True,
    )
    report = calibrate(folder, options)
    after = load_heads(folder)
    assert after.rank_traces is not None and after.rank_traces.shape == (report.positions, 3)
    for a, b in zip(before.blocks, after.blocks, strict=True):
        assert np.array_equal(a[0].weight.numpy(), b[0].weight.numpy())
    for real, told in report.measured.values():
        assert real == pytest.approx(told, rel=0.01)
    assert "head 3" in report.table() and "N =   4" in report.table()
    assert medusa_ext.load(tiny_directory(), heads=folder, dtype="float32").calibrated


def test_held_out_lists_do_not_enter_calibration(tmp_path: Path) -> None:
    prompts = tmp_path / "held_out.jsonl"
    prompts.write_text('"a question"\n')
    arguments = ["calibrate", str(tiny_heads()), "--model", str(tiny_directory())]
    assert main([*arguments, "--prompts", str(prompts)]) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["distill", "OUT", "--tokens", "0"], "--tokens"),
        (["distill", "OUT", "--self-share", "2"], "--self-share"),
        (["distill", "OUT", "--max-new-tokens", "300"], "--max-new-tokens"),
        (["distill", "OUT", "--backend", "torch", "--max-new-tokens", "9"], "--dtype"),
        (["train", "OUT", "OUT"], "manifest.json"),
        (["train", "DATA", "OUT", "--dropout", "1.5"], "dropout"),
        (["train", "DATA", "OUT", "--vocabulary", "999"], "draft vocabulary"),
        (["calibrate", "OUT"], "OUT"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"OUT": str(tmp_path / "out"), "DATA": str(tiny_data())}
    extra = ["--model", str(tiny_directory())]
    extra += ["--max-prompt-tokens", "100"] if arguments[0] == "distill" else []
    assert main([*(places.get(a, a) for a in arguments), *extra]) == 2
    assert places.get(named, named) in capsys.readouterr().err
