"""Markers and fixtures for all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from medusa_ext import files

# Where `benchmarks` is; last, as the tests are for the package that is installed.
sys.path.append(str(Path(__file__).parents[1]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips `cuda` tests without a device, and `soak` tests unless they are asked for by -m."""
    no_device = pytest.mark.skip(reason="needs a CUDA device")
    by_hand = pytest.mark.skip(reason="runs by hand: pytest -m soak")
    for item in items:
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_device)
        if "soak" in item.keywords and "soak" not in config.getoption("-m"):
            item.add_marker(by_hand)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, whose folder does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(files, "_CACHE", folder)
    return folder
