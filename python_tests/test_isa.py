"""MEDUSA_ISA: the instruction set of the CPU kernels, of the decoder and the operators alike."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from medusa_ext import _C

PRINT = """
import sys
sys.path.insert(0, sys.argv[1])
from models import tiny
from medusa_ext import _C
print(_C.default_isa(), tiny().native.isa)
"""


def run(isa: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRINT, os.path.dirname(__file__)]
    environment = os.environ | {"MEDUSA_ISA": isa}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("isa", ["", *_C.available_isas()])
def test_models_use_what_is_named(isa: str) -> None:
    expected = isa or _C.available_isas()[0]
    assert run(isa).stdout.split() == [expected, expected]


def test_what_the_machine_lacks_is_an_error() -> None:
    found = run("avx1024")
    assert found.returncode != 0
    assert f"MEDUSA_ISA: needs one of {', '.join(_C.available_isas())}" in found.stderr


def test_the_doctor_says_what_is_slower() -> None:
    command = [sys.executable, "-m", "medusa_ext", "doctor"]
    environment = os.environ | {"MEDUSA_ISA": "generic"}
    text = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    assert "generic (this machine has" in text and "slow portable path" in text
