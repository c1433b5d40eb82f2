"""Compiles the probes with the extension's own compiler, flags and cached objects."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import medusa_ext
from medusa_ext._build import BuildError, Settings, Sources, build_folder, find_compiler, find_root
from medusa_ext._build.compile import compile_library, take_snapshot
from medusa_ext._build.toolchain import HOST_FLAGS, Compiler, key, make_plan

_HERE: Final = Path(__file__).parent
_PROFILE_SOURCE: Final = "model/step_profile.cpp"  # its name among the sources


class ProbeError(RuntimeError):
    """A probe could not be compiled or run; the message says why."""


@functools.cache
def limits_library(isa: str) -> ctypes.CDLL:
    """The register and memory peaks, compiled for one instruction set.

    Raises ProbeError without a compiler.
    """
    root, settings, compiler = _tools()
    source = _HERE / "limits.cpp"
    dot = isa.replace("neon_dotprod", "neon")
    defines = [
        f'-DMEDUSA_PROBE_ISA="cpu/isa/{isa}.h"',
        f'-DMEDUSA_PROBE_DOT="cpu/isa/dot_{dot}.h"',
        f"-DMEDUSA_PROBE_REGION={int(isa not in ('generic', 'neon'))}",
    ]
    command = [*compiler.launcher, *compiler.command, *HOST_FLAGS, "-std=c++17", "-shared"]
    command += [*defines, f"-I{root}", str(source)]
    digest = key([command, compiler.version, source.read_text(), Sources.read(root).digest])
    target = build_folder(settings) / "probes" / f"limits-{isa}-{digest}.so"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "limits.so"
            result = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True)
            if result.returncode != 0:
                raise ProbeError(f"limits.cpp: {result.stderr.strip()[-2000:]}")
            os.replace(made, target)
    library = ctypes.CDLL(str(target))
    library.medusa_probe_operations.restype = ctypes.c_int64
    library.medusa_probe_peak.restype = ctypes.c_float
    library.medusa_probe_read.restype = ctypes.c_uint64
    return library


@functools.cache
def profile_library() -> ctypes.CDLL:
    """The step profile, linked with the extension's torch-free objects (compiled if need be).

    Raises ProbeError without a compiler.
    """
    root, settings, compiler = _tools()
    source = _HERE / "step_profile.cpp"
    sources = Sources.read(root)
    digest = key([compiler.version, source.read_text(), sources.digest])
    target = build_folder(settings) / "probes" / f"profile-{digest}.so"
    if not target.is_file():
        try:
            _compile_profile(root, settings, compiler, source, target)
        except BuildError as error:
            raise ProbeError(str(error)) from error
    return ctypes.CDLL(str(target))


def _compile_profile(
    root: Path, settings: Settings, compiler: Compiler, source: Path, target: Path
) -> None:
    plan = make_plan(root, replace(settings, cuda=False))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        scratch = Path(name)
        snapshot = take_snapshot(root, scratch)
        shutil.copy(source, snapshot.root / _PROFILE_SOURCE)
        layers = ("core/", "cpu/", "model/", "engine/")
        listed = [one for one in snapshot.select(cuda=False) if one.startswith(layers)]
        plan = replace(plan, sources=Sources(snapshot.root, (*listed, _PROFILE_SOURCE)))
        objects = build_folder(settings) / "objects"
        os.replace(compile_library(plan, compiler, settings, objects, scratch), target)


def _tools() -> tuple[Path, Settings, Compiler]:
    settings = Settings.from_environment(os.environ)
    root = find_root(Path(medusa_ext.__file__).parent)
    try:
        return root, settings, find_compiler(settings)
    except BuildError as error:
        raise ProbeError(str(error)) from error
