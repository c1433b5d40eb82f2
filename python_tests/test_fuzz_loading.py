"""Damaged files end in a clean error: the fuzzer in a process of its own, with time bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "fuzz_loading.py"


def run_fuzzer(cases: int, seed: int, timeout: int) -> str:
    """Runs the fuzzer; its output if it ended well, else the test fails with it."""
    root = str(FUZZER.parent.parent)
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, str(FUZZER), "--cases", str(cases), "--seed", str(seed)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_500_damaged_checkpoints() -> None:
    out = run_fuzzer(500, seed=2024, timeout=300)
    assert "500 cases" in out and "failures 0" in out
    # The fuzzer did reach both ends: damage that is noticed, and harmless damage.
    for outcome in ("gguf refused", "heads-pt refused", "safetensors loaded", "gguf loaded"):
        assert outcome in out


@pytest.mark.soak
def test_20000_damaged_checkpoints() -> None:
    out = run_fuzzer(20_000, seed=1, timeout=3600)
    assert "20000 cases" in out and "failures 0" in out
