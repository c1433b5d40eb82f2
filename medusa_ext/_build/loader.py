"""Finds the native modules when they are imported, compiling them if need be."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType

from . import cache, cuda
from .cache import Binary
from .settings import BuildError, Settings
from .sources import ENGINE, MODULES, find_root
from .toolchain import Plan, make_plan

AHEAD_OF_TIME_INFO = "_build_info.json"


@dataclass(frozen=True)
class Found:
    """A usable binary, or None; and why the ahead-of-time binary is not it (empty if it is)."""

    binary: Binary | None
    plan: Plan
    rejected: str


def look(package: Path, settings: Settings, module: str = ENGINE) -> Found:
    """What importing the native module would load as things are. Never compiles."""
    plan = make_plan(find_root(package), settings, module)
    binary, rejected = _ahead_of_time(package, plan)
    if binary is None or rejected:
        fresher = cache.find(plan, settings)
        if fresher is not None:
            return Found(fresher, plan, rejected)
    # A binary that only lacks the CUDA backend serves where nothing may be compiled.
    if rejected and not settings.disable_jit:
        binary = None
    return Found(binary, plan, rejected)


def obtain(package: Path, settings: Settings, module: str = ENGINE) -> Binary:
    """The binary to load; compiles it if there is none. Raises BuildError if that is impossible."""
    found = look(package, settings, module)
    if found.binary is not None:
        return found.binary
    if settings.disable_jit:
        raise BuildError(
            f"medusa_ext: {found.rejected}, and MEDUSA_DISABLE_JIT=1 forbids compiling at first "
            "use. Build ahead of time (pip install --no-build-isolation . in the environment of "
            "this torch), or unset MEDUSA_DISABLE_JIT."
        )
    return cache.build(found.plan, settings)


def _ahead_of_time(package: Path, plan: Plan) -> tuple[Binary | None, str]:
    """The installed binary if it may be loaded; and what is wrong with it, if anything is."""
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    files = [package / f"{plan.module}{suffix}" for suffix in suffixes]
    paths = [file for file in files if file.is_file()]
    info_path = package / AHEAD_OF_TIME_INFO
    if not paths or not info_path.is_file():
        return None, "no ahead-of-time binary for this Python is installed"
    info = json.loads(info_path.read_text())
    for name, value in plan.identity().items():
        if not name.startswith("cuda") and info.get(name) != value:
            return None, f"the ahead-of-time binary has {name} {info.get(name)}, needed {value}"
    binary = Binary(paths[0], "ahead of time", info)
    if plan.cuda is None:
        return binary, ""
    if info["cuda"] is None:
        return binary, f"the ahead-of-time binary lacks the CUDA backend ({info['cuda_reason']})"
    devices = cuda.device_arches()
    if not cuda.runs_on(info["cuda_arches"], devices):
        built = ", ".join(info["cuda_arches"])
        return binary, f"the ahead-of-time binary is for CUDA {built}, the devices are {devices}"
    return binary, ""


class ExtensionFinder(MetaPathFinder):
    """Answers for the native modules before the folder is searched: a stale binary may lie there."""

    def __init__(self, package: Path, settings: Settings) -> None:
        self._package = package
        self._settings = settings

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec, after compiling it if need be; raises BuildError (an ImportError)."""
        parent, _, module = fullname.rpartition(".")
        if parent != "medusa_ext" or module not in MODULES:
            return None
        location = os.fspath(obtain(self._package, self._settings, module).path)
        loader = ExtensionFileLoader(fullname, location)
        return importlib.util.spec_from_file_location(fullname, location, loader=loader)
