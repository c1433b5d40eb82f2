"""The plan of a build: compiler, torch, flags and backends, and the keys that name its results."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import runpy
import shlex
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from . import cuda
from .settings import BuildError, Settings
from .sources import ENGINE, Sources, in_module

MINIMUM_TORCH = (2, 6)
# Floating point as written: no contraction, no fast-math. Instruction-set files choose their
# target by pragma, so no -march here. The C++ standard is the one that torch asks for.
HOST_FLAGS = ("-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-DNDEBUG", "-pthread")
# torch takes the operators of 16-bit types away, which our kernels use.
NVCC_FLAGS = (
    *("-O3", "-DNDEBUG", "-Xcompiler", "-fvisibility=hidden"),
    *("-U__CUDA_NO_HALF_OPERATORS__", "-U__CUDA_NO_HALF_CONVERSIONS__"),
    *("-U__CUDA_NO_HALF2_OPERATORS__", "-U__CUDA_NO_BFLOAT16_CONVERSIONS__"),
)
# torch's libraries follow, and the engine needs none of them: it is loaded without torch. They have
# a few of the standard library's symbols, so that goes first.
LINK_FLAGS = ("-Wl,--as-needed", "-lstdc++")


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its command and its --version's first line."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Torch:
    """What a binary depends on in the installed torch, read from its files without importing it."""

    version: str
    cuda: str | None
    root: Path

    @staticmethod
    def installed() -> Torch:
        """The torch of this interpreter; raises BuildError if it is missing or too old."""
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            raise BuildError("medusa_ext needs torch 2.6 or later: No module named 'torch'")
        root = Path(spec.origin).parent
        facts = runpy.run_path(str(root / "version.py"))
        version = str(facts["__version__"])
        major, minor = version.split(".")[:2]
        if (int(major), int(minor)) < MINIMUM_TORCH:
            raise BuildError(f"medusa_ext needs torch 2.6 or later, got {version}")
        return Torch(version, facts["cuda"], root)


@dataclass(frozen=True)
class Plan:
    """All that decides what is built. Two equal identities give the same binary."""

    sources: Sources
    torch: Torch
    cuda: cuda.Cuda | None
    cuda_reason: str
    module: str = ENGINE

    def files(self) -> list[str]:
        """The sources of the module."""
        chosen = self.sources.select(cuda=self.cuda is not None)
        return [name for name in chosen if in_module(name, self.module)]

    def identity(self) -> dict[str, Any]:
        """What must be equal for a binary to fit, the compiler and the module apart."""
        return {
            "sources": self.sources.digest,
            "torch": self.torch.version,
            "python": sysconfig.get_config_var("SOABI"),
            "flags": shlex.join((*HOST_FLAGS, *NVCC_FLAGS, *LINK_FLAGS)),
            "cuda": self.cuda.version if self.cuda else None,
            "cuda_arches": list(self.cuda.arches) if self.cuda else [],
        }

    def description(self, compiler: Compiler) -> dict[str, Any]:
        """What is recorded beside a binary."""
        return {**self.identity(), "cuda_reason": self.cuda_reason, "compiler": compiler.version}

    def name(self) -> str:
        """What the module's binaries are filed under: `identity` and the module, hashed."""
        return key({**self.identity(), "module": self.module})

    def objects_name(self, compiler: Compiler) -> str:
        """What objects are filed under: what they depend on besides the sources."""
        besides = {**self.identity(), "sources": ""}
        return key([besides, compiler.command, compiler.version, package_version("pybind11")])

    def include_directories(self) -> list[Path]:
        """Our own headers', pybind11's and CUDA's folders."""
        import pybind11

        folders = [self.sources.root, Path(pybind11.get_include())]
        return folders + (self.cuda.include_directories() if self.cuda else [])

    def link_flags(self, folder: Path) -> list[str]:
        """The linker's words for CUDA's libraries, which get names to link by in `folder`."""
        return self.cuda.link_flags(folder) if self.cuda else []

    def backends(self) -> str:
        """In words, for messages."""
        backends = "CPU and CUDA backends" if self.cuda else "CPU backend"
        return backends if self.module == ENGINE else f"operators' {backends}"


def make_plan(root: Path, settings: Settings, module: str = ENGINE) -> Plan:
    """Reads sources, torch and machine; raises BuildError for what cannot be built at all."""
    torch = Torch.installed()
    return Plan(Sources.read(root), torch, *cuda.decide(torch.cuda, settings), module)


def find_compiler(settings: Settings) -> Compiler:
    """$CXX, else c++, g++ or clang++ on PATH; raises BuildError that says how to get one.

    A ccache in front is left out: torch of today puts it there by itself.
    """
    names = [settings.compiler] if settings.compiler else ["c++", "g++", "clang++"]
    for name in names:
        command = shlex.split(name)
        if shutil.which(command[0]):
            launched = Path(command[0]).name == "ccache" and len(command) > 1
            return _identified(tuple(command[1:] if launched else command))
    looked = ", ".join(names) + (" ($CXX)" if settings.compiler else "")
    raise BuildError(
        f"medusa_ext: no C++ compiler found (looked for {looked} on PATH), and none of the "
        "binaries at hand fits this torch and Python. Install one (Debian, Ubuntu: apt-get "
        "install g++ python3-dev; Fedora: dnf install gcc-c++ python3-devel) and try again."
    )


def check_tools() -> None:
    """Raises BuildError that names what compiling needs and is missing: a package, Python.h."""
    for name in ("ninja", "pybind11"):
        if importlib.util.find_spec(name) is None:
            raise BuildError(f"medusa_ext: compiling needs the package {name}: pip install {name}")
    folder = Path(sysconfig.get_paths()["include"])
    if not (folder / "Python.h").is_file():
        raise BuildError(
            f"medusa_ext: Python.h is not in {folder}: compiling needs Python's headers "
            "(Debian, Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel)"
        )


def key(value: object) -> str:
    """A short name for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def _identified(command: tuple[str, ...]) -> Compiler:
    result = subprocess.run([*command, "--version"], capture_output=True, text=True)
    return Compiler(command, (result.stdout or result.stderr).partition("\n")[0])
