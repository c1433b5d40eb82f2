"""The build at first use: cached, locked, rebuilt when it must be, readable when it cannot.

The mechanism is tested on a module of three small files, which compiles in a second; the real
sources are compiled by the tests that import medusa_ext._C.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from medusa_ext import _build
from medusa_ext._build import cache, cuda
from medusa_ext._build.compile import Progress
from medusa_ext._build.toolchain import make_plan

REPOSITORY = Path(__file__).parents[1]
MODULE = """
#include <Python.h>
#include "core/answer.h"
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "NAME", nullptr, -1, nullptr};
PyMODINIT_FUNC PyInit_NAME() {
  PyObject* module = PyModule_Create(&definition);
  PyModule_AddIntConstant(module, "answer", answer());
  return module;
}
"""
FILES = {
    "sources.txt": "# the list\ncore/answer.cpp\nbindings/module.cpp  # the engine\n"
    "ops/module.cpp\n",
    "core/value.h": "constexpr int kValue = 7;\n",
    "core/other.h": "constexpr int kOther = 1;\n",
    "core/answer.h": "int answer();\n",
    "core/answer.cpp": '#include "core/answer.h"\n#include "value.h"\n'
    "int answer() { return kValue; }\n",
    "bindings/module.cpp": MODULE.replace("NAME", "_C"),
    "ops/module.cpp": MODULE.replace("NAME", "_torch"),
}
OBTAIN = """
import os, sys
from pathlib import Path
from medusa_ext import _build
print(_build.obtain(Path(sys.argv[1]), _build.Settings.from_environment(os.environ)).path)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package folder with native sources in it, as an installed medusa_ext has them."""
    root = tmp_path / "package"
    write_sources(root / "csrc")
    return root


def write_sources(root: Path) -> None:
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def settings(tmp_path: Path) -> _build.Settings:
    return _build.Settings(cache=tmp_path / "the cache")


def answer_of(path: Path) -> int:
    """Loads the module in a process of its own and returns its constant."""
    name = path.name.split(".")[0]
    code = (
        f"import sys; sys.path.insert(0, {str(path.parent)!r}); import {name} as m; print(m.answer)"
    )
    result = subprocess.run(
        [sys.executable, "-c", f"import torch; {code}"], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


def start(package: Path, cache_folder: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that obtains the binary and prints its path."""
    return subprocess.Popen(
        [sys.executable, "-c", OBTAIN, str(package)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(_build.__file__).parents[2]),
            "MEDUSA_CACHE": str(cache_folder),
            **environment,
        },
        cwd=package.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gated_compiler(folder: Path) -> str:
    """A compiler that makes the file `started`, and compiles once there is a file `go`."""
    path = folder / "gated-c++"
    path.write_text(
        f"""#!/bin/sh
if [ "$1" != --version ]; then
  touch "{folder}/started"
  while [ ! -e "{folder}/go" ]; do sleep 0.05; done
fi
exec c++ "$@"
"""
    )
    path.chmod(0o755)
    return str(path)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300  # torch is imported first
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def objects_of(settings: _build.Settings) -> list[Path]:
    return list((settings.cache / "build/objects").glob("*/*.o"))


def test_compiles_once_and_then_reuses(
    package: Path, settings: _build.Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    before = listing(package)
    first = _build.obtain(package, settings)
    assert "medusa_ext: compiling the CPU backend (0/2, 0 s)" in capfd.readouterr().err
    second = _build.obtain(package, settings)
    assert capfd.readouterr().err == ""
    assert first.path == second.path
    assert first.origin == "on the fly"
    assert answer_of(first.path) == 7
    assert listing(package) == before, "the build wrote into the package"


def test_changed_header_rebuilds(package: Path, settings: _build.Settings) -> None:
    old = _build.obtain(package, settings)
    before = {path.name: path.stat().st_mtime for path in objects_of(settings)}
    header = package / "csrc/core/value.h"
    stamp = header.stat()
    header.write_text("constexpr int kValue = 8;\n")
    os.utime(header, (stamp.st_atime, stamp.st_mtime))  # contents count, not clocks
    new = _build.obtain(package, settings)
    assert new.path != old.path
    assert answer_of(new.path) == 8
    compiled = {path.name: path.stat().st_mtime for path in objects_of(settings)}
    assert compiled["core.answer.o"] > before["core.answer.o"]
    assert compiled["bindings.module.o"] == before["bindings.module.o"]


def test_other_torch_needs_another_binary(package: Path, settings: _build.Settings) -> None:
    plan = make_plan(package / "csrc", settings)
    built = cache.build(plan, settings)
    other = dataclasses.replace(plan, torch=dataclasses.replace(plan.torch, version="2.99.0"))
    assert cache.find(plan, settings) == built
    assert cache.find(other, settings) is None


def test_other_compiler_needs_another_binary(
    package: Path, settings: _build.Settings, tmp_path: Path
) -> None:
    built = _build.obtain(package, settings)
    wrapper = tmp_path / "c++-99"
    wrapper.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "c++ 99" || exec c++ "$@"\n')
    wrapper.chmod(0o755)
    other = dataclasses.replace(settings, compiler=str(wrapper))
    assert _build.look(package, other).binary is None
    assert _build.obtain(package, other).path != built.path


def test_second_process_waits_and_says_for_whom(package: Path, tmp_path: Path) -> None:
    compiler = gated_compiler(tmp_path)
    first = start(package, tmp_path / "cache", CXX=compiler)
    wait_for(tmp_path / "started")
    second = start(package, tmp_path / "cache", CXX=compiler)
    assert second.stderr is not None
    assert f"waiting for process {first.pid}" in second.stderr.readline()
    (tmp_path / "go").touch()
    first_out, first_err = first.communicate(timeout=600)
    second_out, second_err = second.communicate(timeout=600)
    assert first.returncode == second.returncode == 0
    assert first_out == second_out
    assert "compiled the CPU backend" in first_err
    assert second_err == ""


def test_killed_build_does_not_block_the_next(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    victim = start(package, folder, CXX=gated_compiler(tmp_path))
    wait_for(tmp_path / "started")
    victim.send_signal(signal.SIGKILL)
    # The compilers it started are still there, and finish later than the next build.
    victim.wait(timeout=60)
    assert list((folder / "build").glob("tmp-*")), "the build was not interrupted half-way"
    assert not list(folder.rglob("_C.so"))
    binary = _build.obtain(package, _build.Settings(cache=folder))
    (tmp_path / "go").touch()
    victim.communicate(timeout=60)
    assert answer_of(binary.path) == 7
    assert not list((folder / "build").glob("tmp-*"))


def test_compile_error_shows_the_compilers_words(package: Path, settings: _build.Settings) -> None:
    source = package / "csrc/core/answer.cpp"
    good = source.read_text()
    source.write_text("int answer() { return undeclared; }\n")
    with pytest.raises(_build.BuildError, match=r"(?s)compiling core/answer.cpp.*undeclared"):
        _build.obtain(package, settings)
    assert not list(settings.cache.rglob("_C.so"))
    source.write_text(good)
    assert answer_of(_build.obtain(package, settings).path) == 7


def test_no_compiler_is_a_readable_error(package: Path, tmp_path: Path) -> None:
    process = start(package, tmp_path / "cache", PATH="/nonexistent", CXX="")
    _, stderr = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "no C++ compiler found (looked for c++, g++, clang++ on PATH)" in stderr
    assert "apt-get install g++" in stderr


def test_cached_binary_needs_no_compiler(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    built = _build.obtain(package, _build.Settings(cache=folder))
    process = start(package, folder, PATH="/nonexistent", CXX="")
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert stdout.strip() == str(built.path)


def test_disable_jit_forbids_compiling_but_not_the_cache(
    package: Path, settings: _build.Settings
) -> None:
    forbidding = dataclasses.replace(settings, disable_jit=True)
    with pytest.raises(_build.BuildError, match="MEDUSA_DISABLE_JIT=1 forbids compiling"):
        _build.obtain(package, forbidding)
    built = _build.obtain(package, settings)
    assert _build.obtain(package, forbidding).path == built.path


@pytest.fixture(scope="session")
def built_ahead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what setup.py makes of the small module, in a path with a space."""
    root = tmp_path_factory.mktemp("ahead of time")
    shutil.copy(REPOSITORY / "setup.py", root)
    shutil.copytree(Path(_build.__file__).parent, root / "medusa_ext/_build")
    write_sources(root / "csrc")
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", "built"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root / "built/medusa_ext"


@pytest.fixture
def installed(package: Path, built_ahead: Path) -> Path:
    """The binary of the package folder, in which setup.py's are installed."""
    shutil.copytree(built_ahead, package, dirs_exist_ok=True)
    return package / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"


def test_ahead_of_time_binaries_are_used(
    package: Path, settings: _build.Settings, installed: Path
) -> None:
    binary = _build.obtain(package, settings)
    assert (binary.path, binary.origin) == (installed, "ahead of time")
    assert answer_of(binary.path) == 7
    operators = _build.obtain(package, settings, _build.OPERATORS)
    assert answer_of(operators.path) == 7
    assert not settings.cache.exists()


@pytest.mark.parametrize("field", ["torch", "sources", "python", "flags"])
def test_foreign_ahead_of_time_binary_is_rebuilt(
    package: Path, settings: _build.Settings, installed: Path, field: str
) -> None:
    info_path = package / "_build_info.json"
    info_path.write_text(json.dumps({**json.loads(info_path.read_text()), field: "other"}))
    forbidding = dataclasses.replace(settings, disable_jit=True)
    with pytest.raises(_build.BuildError, match=f"ahead-of-time binary has {field} other"):
        _build.obtain(package, forbidding)
    binary = _build.obtain(package, settings)
    assert binary.path != installed
    assert binary.origin == "on the fly"


@pytest.mark.usefixtures("installed")
def test_changed_source_outdates_the_ahead_of_time_binary(
    package: Path, settings: _build.Settings
) -> None:
    (package / "csrc/core/value.h").write_text("constexpr int kValue = 9;\n")
    assert answer_of(_build.obtain(package, settings).path) == 9


def test_unwritable_cache_names_the_variable(package: Path) -> None:
    with pytest.raises(_build.BuildError, match=r"cannot write the cache .*set MEDUSA_CACHE"):
        _build.obtain(package, _build.Settings(cache=Path("/proc/medusa_ext")))


def test_pruning_keeps_the_binaries_used_last(
    package: Path, settings: _build.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_nothing(*arguments: object) -> Path:
        library = settings.cache / "library.so"
        library.touch()
        return library

    monkeypatch.setattr(cache, "compile_library", compile_nothing)
    plan = make_plan(package / "csrc", settings)
    built = []
    for minor in range(cache.KEEP_BINARIES + 2):
        torch = dataclasses.replace(plan.torch, version=f"2.{10 + minor}.9")
        built.append(cache.build(dataclasses.replace(plan, torch=torch), settings).path)
        os.utime(built[-1].parent, (minor, minor))
    assert [path.exists() for path in built] == [False] * 2 + [True] * cache.KEEP_BINARIES


def test_missing_listed_source_is_named(package: Path) -> None:
    (package / "csrc/core/answer.cpp").unlink()
    with pytest.raises(_build.BuildError, match=r"sources.txt names core/answer.cpp"):
        _build.Sources.read(package / "csrc")


def test_the_list_names_every_source() -> None:
    root = REPOSITORY / "csrc"
    assert _build.Sources.read(root).unlisted() == []


def test_cuda_sources_need_the_cuda_backend(package: Path) -> None:
    for name in ("cuda/step/compact.cu", "ops/cuda/compact.cpp"):
        path = package / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with (package / "csrc/sources.txt").open("a") as file:
            file.write(f"{name}\n")
    sources = _build.Sources.read(package / "csrc")
    listed = ["core/answer.cpp", "bindings/module.cpp", "ops/module.cpp"]
    assert sources.select(cuda=False) == listed
    assert sources.select(cuda=True)[3:] == ["cuda/step/compact.cu", "ops/cuda/compact.cpp"]


def test_progress_rewrites_a_terminals_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress("CPU backend", 31, stream, start=time.monotonic() - 40)
    progress.update(12)
    progress.update(31, final=True)
    lines = stream.getvalue().split("\r")
    assert lines[0] == "medusa_ext: compiling the CPU backend (12/31, 40 s)"
    assert lines[1].rstrip(" \n") == "medusa_ext: compiled the CPU backend (31/31, 40 s)"


def test_environment_values_are_checked() -> None:
    read = _build.Settings.from_environment
    assert read({"MEDUSA_CUDA": "1", "HOME": "/h"}).cuda is True
    assert read({"MEDUSA_CUDA": "0"}).cuda is False
    assert read({}).cuda is None
    assert read({"MEDUSA_CACHE": "/x/y"}).cache == Path("/x/y")
    assert read({"XDG_CACHE_HOME": "/x"}).cache == Path("/x/medusa_ext")
    with pytest.raises(_build.BuildError, match="MEDUSA_CUDA: needs 0 or 1, got 'maybe'"):
        read({"MEDUSA_CUDA": "maybe"})
    with pytest.raises(_build.BuildError, match="MAX_JOBS: needs a whole number"):
        read({"MAX_JOBS": "none"})


def test_cuda_is_left_out_with_a_reason(settings: _build.Settings) -> None:
    assert cuda.decide(None, settings) == (None, "the installed torch is not a CUDA build")
    off = dataclasses.replace(settings, cuda=False)
    assert cuda.decide("13.0", off) == (None, "MEDUSA_CUDA=0")
    toolkit, reason = cuda.decide("5.5", settings)
    assert toolkit is None
    assert reason.startswith("no nvcc 5.x found for torch's CUDA 5.5")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_cuda_is_built_when_asked_for(settings: _build.Settings) -> None:
    nvcc = shutil.which("nvcc")
    assert nvcc is not None
    version = cuda.nvcc_version(Path(nvcc))
    asked = dataclasses.replace(settings, cuda_arch_list="8.0 9.0+PTX")
    toolkit, reason = cuda.decide(version, asked)
    assert toolkit is not None
    assert reason == "TORCH_CUDA_ARCH_LIST=8.0 9.0+PTX"
    assert toolkit.arches == ("8.0", "9.0+PTX")
    everywhere, reason = cuda.decide(version, dataclasses.replace(settings, cuda=True))
    assert everywhere is not None
    assert reason in ("MEDUSA_CUDA=1", "a CUDA device is present")
    if not cuda.device_arches():
        assert cuda.decide(version, settings)[0] is None


@pytest.mark.parametrize(
    ("built", "devices", "runs"),
    [
        (["8.0"], ("8.0",), True),
        (["8.0"], ("8.6",), True),
        (["8.6"], ("8.0",), False),
        (["8.0"], ("9.0",), False),
        (["8.0+PTX"], ("9.0",), True),
        (["9.0+PTX"], ("8.0",), False),
        (["8.0", "9.0"], ("8.9", "9.0"), True),
        (["9.0"], ("8.9", "9.0"), False),
        (["9.0"], (), True),
    ],
)
def test_code_runs_on_its_devices(built: list[str], devices: tuple[str, ...], runs: bool) -> None:
    assert cuda.runs_on(built, devices) is runs


def test_arch_list_is_checked() -> None:
    assert cuda.parse_arch_list("8.0;9.0+PTX, 12.0") == ("8.0", "9.0+PTX", "12.0")
    with pytest.raises(_build.BuildError, match="TORCH_CUDA_ARCH_LIST: needs numbers"):
        cuda.parse_arch_list("Hopper")


def test_the_engine_loads_without_torch() -> None:
    code = "import medusa_ext._C, sys; assert 'torch' not in sys.modules"
    folder = Path(_build.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)


def test_only_operators_include_torch() -> None:
    root = REPOSITORY / "csrc"
    pattern = re.compile(r"#include <(torch|ATen|c10)/")
    files = [path for path in root.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh")]
    including = {
        path.relative_to(root).parts[0] for path in files if pattern.search(path.read_text())
    }
    assert including == {"ops"}


def test_modules_share_kernels_and_nothing_else() -> None:
    sources = _build.Sources.read(REPOSITORY / "csrc").listed
    engine, operators = (
        {name for name in sources if _build.in_module(name, module)} for module in _build.MODULES
    )
    assert engine | operators == set(sources)
    assert {name.split("/")[0] for name in engine & operators} == {"core", "cpu", "cuda"}


def test_importing_the_package_alone_builds_nothing() -> None:
    code = "import sys, medusa_ext; assert 'medusa_ext._C' not in sys.modules"
    folder = Path(_build.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
