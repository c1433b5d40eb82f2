"""`medusa-ext doctor`: every fact is there, and follows the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import medusa_ext
from medusa_ext.cli import report


def run_doctor(cache: Path, **environment: str) -> tuple[int, dict[str, str]]:
    """Runs the report in a process of its own: exit code and facts by name."""
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from medusa_ext.cli import report; sys.exit(report.main())",
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(medusa_ext.__file__).parents[1]),
            "MEDUSA_CACHE": str(cache),
            **environment,
        },
        cwd=cache.parent,
        capture_output=True,
        text=True,
    )
    assert result.stderr == ""
    width = 2 + result.stdout.index(medusa_ext.__version__) - len("  ")
    rows = ((line[:width].strip(), line[width:]) for line in result.stdout.splitlines())
    return result.returncode, dict(rows)


@pytest.fixture(scope="module")
def native() -> object:
    """The real native module, built if need be."""
    from medusa_ext import _C

    return _C


def test_reports_the_loaded_extension(native: object) -> None:
    text = report.report()
    facts = {line.split("  ")[0]: line for line in text.splitlines()}
    assert torch.__version__ in facts["torch"]
    assert platform.python_version() in facts["python"]
    assert "built" in facts["extension"]
    assert "built" in facts["cpu backend"]
    assert native.available_isas()[0] in facts["instruction set"]  # type: ignore[attr-defined]
    assert str(os.cpu_count()) in facts["threads"]
    assert Path(facts["binary"].split("  ")[-1].strip()) == Path(str(native.__file__))  # type: ignore[attr-defined]
    for name in ("compiler", "nvcc", "cuda backend", "processor", "cache", "builds"):
        assert facts[name].split("  ", 1)[1].strip()
    if torch.version.cuda is None:
        assert "the installed torch is not a CUDA build" in facts["cuda backend"]


def without_binary(tmp_path: Path) -> Path:
    """A copy of the package that has sources but no binary, so that nothing is loaded."""
    root = Path(medusa_ext.__file__).parent
    copy = tmp_path / "copy" / "medusa_ext"
    copy.parent.mkdir()
    subprocess.run(["cp", "-r", root, copy], check=True)
    for path in [*copy.glob("_C.*.so"), *copy.glob("_build_info.json")]:
        path.unlink()
    if not (copy / "csrc").exists():
        subprocess.run(["cp", "-r", root.parent / "csrc", copy / "csrc"], check=True)
    return copy.parent


def test_says_what_a_first_use_would_do(tmp_path: Path) -> None:
    path = str(without_binary(tmp_path))
    code, facts = run_doctor(tmp_path / "cache", PYTHONPATH=path)
    assert code == 0
    assert facts["extension"] == "none yet: the CPU backend will be compiled at first use"
    assert facts["cache"] == f"{tmp_path / 'cache'} (empty)"
    assert f"MEDUSA_CACHE={tmp_path / 'cache'}" in facts["environment"]


def test_fails_where_nothing_can_run(tmp_path: Path) -> None:
    path = str(without_binary(tmp_path))
    code, facts = run_doctor(tmp_path / "cache", PYTHONPATH=path, MEDUSA_DISABLE_JIT="1")
    assert code == 1
    assert facts["extension"] == "none, and MEDUSA_DISABLE_JIT=1 forbids compiling"
    code, facts = run_doctor(tmp_path / "cache", PYTHONPATH=path, PATH="/nonexistent", CXX="")
    assert code == 1
    assert facts["extension"] == "none, and no compiler to make one"
    assert facts["compiler"].startswith("none found")


def test_default_model_is_looked_for_in_the_cache(tmp_path: Path) -> None:
    from medusa_ext.checkpoints import names as resolve

    folder = tmp_path / "cache" / "models"
    folder.mkdir(parents=True)
    path = folder / resolve.DEFAULT_FILE
    with path.open("wb") as file:
        file.truncate(resolve.DEFAULT_SIZE)
    _, facts = run_doctor(tmp_path / "cache", PYTHONPATH=str(without_binary(tmp_path)))
    assert facts["default model"] == f"smollm2-135m-instruct in {path}"
