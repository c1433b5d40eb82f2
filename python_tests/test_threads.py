"""How many threads the decoder uses, and who says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from medusa_ext import _C

PRINT = "import torch; from medusa_ext import _C; torch.set_num_threads(1); print(_C.num_threads())"


def run(value: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MEDUSA_NUM_THREADS": value}
    return subprocess.run(
        [sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("count", [0, -1, (os.cpu_count() or 1) + 1])
def test_counts_beyond_the_machine(count: int) -> None:
    before = _C.num_threads()
    with pytest.raises(ValueError, match=rf"num_threads: needs 1 to \d+ .* got {count}"):
        _C.set_num_threads(count)
    assert _C.num_threads() == before


def test_the_environment_comes_before_torch() -> None:
    most = str(os.cpu_count())
    assert run(most).stdout.split() == [most]
    assert run("").stdout.split() == ["1"]


def test_without_torch_as_many_as_torch_starts_with() -> None:
    show = "print(_C.num_threads())"
    code = f"from medusa_ext import _C; {show}; import torch; {show}"
    for variable in ("", "1"):
        environment = os.environ | {"MEDUSA_NUM_THREADS": "", "OMP_NUM_THREADS": variable}
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        alone, beside_torch = result.stdout.split()
        assert alone == beside_torch


@pytest.mark.parametrize("value", ["0", "two", "4097"])
def test_an_unusable_environment_is_named(value: str) -> None:
    found = run(value)
    assert found.returncode != 0
    assert f"MEDUSA_NUM_THREADS: needs 1 to {os.cpu_count()}" in found.stderr
    assert f"got {value}" in found.stderr


def test_an_unusable_environment_is_no_matter_where_threads_are_given() -> None:
    code = "from medusa_ext import _C; _C.set_num_threads(1); print(_C.num_threads())"
    environment = os.environ | {"MEDUSA_NUM_THREADS": "two"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "1\n"), found.stderr
