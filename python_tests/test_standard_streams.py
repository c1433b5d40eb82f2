"""Standard streams that are closed or break."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import medusa_ext


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of the shell in which `medusa` is the program."""
    program = f'medusa() {{ "{sys.executable}" -m medusa_ext "$@"; }}; '
    root = str(Path(medusa_ext.__file__).parents[1])
    return subprocess.run(
        ["bash", "-c", program + line],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": root},
    )


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_failure(redirection: str) -> None:
    done = shell(f"medusa tree --nodes 4 {redirection}")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("4 nodes" in done.stdout) == (">&-" not in redirection or "2>&-" == redirection)


def test_a_closed_input_is_an_empty_one() -> None:
    done = shell("medusa chat --model nothing-there --heads none <&-")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "nothing-there" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("sink", "code"), [("| true", 141), ("> /dev/full", 2)])
def test_output_that_cannot_be_written_is_no_traceback(sink: str, code: int) -> None:
    done = shell(f"medusa tree --random 1 --nodes 64 {sink}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == (code == 2) and "Traceback" not in done.stderr
