"""The plan of a build: compiler, torch, flags and backends, and the key that names its result."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import shlex
import shutil
import runpy
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import cuda
from .settings import BuildError, Settings
from .sources import ENGINE, Sources, in_module, is_cuda, needs_python, needs_torch

MINIMUM_TORCH = (2, 6)
# Floating point as written: no contraction, no fast-math. Instruction-set files choose their
# target by pragma, so no -march here.
HOST_FLAGS = ("-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-DNDEBUG", "-pthread")
NVCC_FLAGS = ("-O3", "-std=c++17", "-DNDEBUG")


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: what launches it (ccache), its own words, its --version's first line."""

    launcher: tuple[str, ...]
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
        if numbers(version) < MINIMUM_TORCH:
            raise BuildError(f"medusa_ext needs torch 2.6 or later, got {version}")
        return Torch(version, facts["cuda"], root)

    @functools.cached_property
    def cxx11_abi(self) -> bool:
        """Which of libstdc++'s two ABIs torch was compiled with; asked in a process of its own."""
        code = "import torch; print(int(torch.compiled_with_cxx11_abi()))"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if result.returncode != 0:
            raise BuildError(f"medusa_ext: torch cannot be imported:\n{result.stderr.strip()}")
        return result.stdout.split()[-1] == "1"

    def language_flag(self) -> str:
        """The C++ standard: torch's headers will need C++20 after 2.13."""
        return "-std=c++17" if numbers(self.version) < (2, 14) else "-std=c++20"


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

    def name(self) -> str:
        """What the module's binaries are filed under: `identity` and the module, hashed."""
        return key({**self.identity(), "module": self.module})

    def identity(self) -> dict[str, Any]:
        """What is recorded beside a binary, and hashed for the cache (compiler and module apart)."""
        return {
            "sources": self.sources.digest,
            "torch": self.torch.version,
            "python": sysconfig.get_config_var("SOABI"),
            "flags": shlex.join((*HOST_FLAGS, self.torch.language_flag(), *NVCC_FLAGS)),
            "cuda": self.cuda.version if self.cuda else None,
            "cuda_arches": list(self.cuda.arches) if self.cuda else [],
        }

    def backends(self) -> str:
        """In words, for messages."""
        backends = "CPU and CUDA backends" if self.cuda else "CPU backend"
        return backends if self.module == ENGINE else f"operators' {backends}"


def make_plan(root: Path, settings: Settings, module: str = ENGINE) -> Plan:
    """Reads sources, torch and machine; raises BuildError for what cannot be built at all."""
    torch = Torch.installed()
    return Plan(Sources.read(root), torch, *cuda.decide(torch.cuda, settings), module)


def find_compiler(settings: Settings) -> Compiler:
    """$CXX, else c++, g++ or clang++ on PATH; raises BuildError that says how to get one."""
    names = [settings.compiler] if settings.compiler else ["c++", "g++", "clang++"]
    for name in names:
        command = tuple(shlex.split(name))
        if shutil.which(command[0]):
            launched = Path(command[0]).name == "ccache" and len(command) > 1
            split = 1 if launched else 0
            return Compiler(command[:split], command[split:], _version(command))
    looked = ", ".join(names) + (" ($CXX)" if settings.compiler else "")
    raise BuildError(
        f"medusa_ext: no C++ compiler found (looked for {looked} on PATH), and none of the "
        "binaries at hand fits this torch and Python. Install one (Debian, Ubuntu: apt-get "
        "install g++ python3-dev; Fedora: dnf install gcc-c++ python3-devel) and try again."
    )


def host_command(plan: Plan, compiler: Compiler, root: str, name: str) -> list[str]:
    """The compiler's words for the .cpp file `name` below `root`; the file and -o are to come.

    Only files that need torch's or Python's headers see them, so that the others' objects outlive
    them. pybind11 is the one that torch brings.
    """
    folders: list[Path] = []
    include = plan.torch.root / "include"
    if needs_python(name):
        folders += [include, python_include()]
    if needs_torch(name):
        folders += [include / "torch/csrc/api/include"]
    if plan.cuda and is_cuda(name):
        folders += plan.cuda.include_directories()
    system = [word for folder in folders for word in ("-isystem", str(folder))]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(plan.torch.cxx11_abi)}"
    flags = [*HOST_FLAGS, plan.torch.language_flag(), abi]
    return [*compiler.command, *flags, f"-I{root}", *system, "-c"]


def nvcc_command(toolkit: cuda.Cuda, compiler: Compiler, root: str) -> list[str]:
    """nvcc's words for a .cu file: it sees no torch header."""
    host = ["-ccbin", compiler.command[0], "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    return [str(toolkit.nvcc), *NVCC_FLAGS, *toolkit.gencode(), *host, f"-I{root}", "-c"]


def link_command(plan: Plan, compiler: Compiler) -> list[str]:
    """The compiler's words for the shared library; objects and -o are still to come.

    The engine is not linked with torch, which may never be loaded: it finds CUDA's libraries itself.
    """
    words = [*compiler.command, "-shared", "-pthread", "-Wl,--no-as-needed"]
    if plan.module != ENGINE:
        names = ["c10", "torch_cpu", "torch", "torch_python"]
        names += ["c10_cuda", "torch_cuda"] if plan.cuda else []
        words += [f"-L{plan.torch.root / 'lib'}", *(f"-l{name}" for name in names)]
    for path in plan.cuda.libraries() if plan.cuda else []:
        words += [str(path), f"-Wl,-rpath,{path.parent}"]
    return words


def python_include() -> Path:
    """The folder of Python.h; raises BuildError that names the missing package."""
    folder = Path(sysconfig.get_paths()["include"])
    if not (folder / "Python.h").is_file():
        raise BuildError(
            f"medusa_ext: Python.h is not in {folder}: compiling needs Python's headers "
            "(Debian, Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel)"
        )
    return folder


def key(value: object) -> str:
    """A short name for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def numbers(version: str) -> tuple[int, int]:
    """(2, 13) for "2.13.0+cpu"."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    result = subprocess.run([*command, "--version"], capture_output=True, text=True)
    return (result.stdout or result.stderr).partition("\n")[0]
