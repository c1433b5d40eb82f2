"""Heads that fit a base by shape but not by content are noticed when they are loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from models import tiny_directory, tiny_heads

import medusa_ext
from medusa_ext.checkpoints import load_heads, save_heads
from medusa_ext.checkpoints.heads.checkpoint import HeadsCheckpoint, ResBlock
from medusa_ext.checkpoints.heads.resolve import PACKAGED_HEADS
from medusa_ext.engine.heads_check import LOW_ACCURACY, first_head_accuracy

MODEL = "smollm2-135m-instruct"
Change = Callable[[HeadsCheckpoint], HeadsCheckpoint]


def for_another_base(heads: HeadsCheckpoint) -> HeadsCheckpoint:
    """The same shapes; the hidden states that these heads expect are in another order."""
    blocks = tuple(
        tuple(ResBlock(block.weight.roll(1, dims=1), block.bias) for block in head)
        for head in heads.blocks
    )
    assert heads.root_weights is not None
    roots = tuple(matrix.roll(1, dims=1) for matrix in heads.root_weights)
    return replace(heads, blocks=blocks, root_weights=roots)


@pytest.mark.parametrize(("change", "warned"), [(lambda h: h, False), (for_another_base, True)])
def test_heads_without_a_fingerprint_are_tried(
    change: Change, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packaged = load_heads(PACKAGED_HEADS / MODEL / "default")
    save_heads(change(replace(packaged, base_fingerprint=None)), tmp_path)
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        model = medusa_ext.load(MODEL, heads=tmp_path)
    found = [record.getMessage() for record in caplog.records]
    assert (first_head_accuracy(model) < LOW_ACCURACY) == warned
    if warned:
        assert len(found) == 1 and f"{tmp_path}: head 1 guesses" in found[0] and MODEL in found[0]
    else:
        assert found == [] and first_head_accuracy(model) > 2 * LOW_ACCURACY


def test_heads_that_guess_at_random_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        medusa_ext.load(tiny_directory(), heads=tiny_heads(useless=True))
    assert "drafts may be accepted badly" in caplog.text


def test_packaged_heads_need_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their fingerprint says whose they are: nothing is decoded while loading."""
    monkeypatch.setattr(
        "medusa_ext.engine.heads_check.first_head_accuracy", lambda model: pytest.fail()
    )
    medusa_ext.load(MODEL)
