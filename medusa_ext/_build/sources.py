"""The native sources: which there are, and in which module."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .settings import BuildError

LIST_NAME = "sources.txt"
# The native modules: the engine, which knows nothing of torch, and the operators, which need it.
ENGINE = "_C"
OPERATORS = "_torch"
MODULES = (ENGINE, OPERATORS)
ENGINE_ALONE = ("model/", "engine/", "bindings/")
NOT_IN_THE_MODULE = ("tests", "benchmarks")


@dataclass(frozen=True)
class Sources:
    """A csrc folder and the files of its list. Paths are relative to `root`."""

    root: Path
    listed: tuple[str, ...]

    @staticmethod
    def read(root: Path) -> Sources:
        """Reads `root`/sources.txt; raises BuildError for a missing list or a missing file."""
        list_path = root / LIST_NAME
        if not list_path.is_file():
            raise BuildError(f"medusa_ext: the source list {list_path} is missing: reinstall")
        lines = (line.split("#")[0].strip() for line in list_path.read_text().splitlines())
        listed = tuple(line for line in lines if line)
        for name in listed:
            if not (root / name).is_file():
                raise BuildError(f"medusa_ext: {list_path} names {name}, which is missing")
        return Sources(root, listed)

    def select(self, cuda: bool) -> list[str]:
        """The sources to compile: all of them, or those that need no CUDA."""
        return [name for name in self.listed if cuda or not is_cuda(name)]

    @cached_property
    def files(self) -> list[str]:
        """Listed sources and all headers: what the compiler may see."""
        headers = (".h", ".cuh", ".inc")
        return sorted({*self.listed, *(name for name in self._on_disk() if name.endswith(headers))})

    @cached_property
    def digest(self) -> str:
        """A hash over names and contents of `files`."""
        state = hashlib.sha256()
        for name in self.files:
            content = (self.root / name).read_bytes()
            state.update(f"{name}\0{len(content)}\0".encode() + content)
        return state.hexdigest()[:16]

    def unlisted(self) -> list[str]:
        """Source files on disk that the list forgot."""
        return sorted({name for name in self._on_disk() if name.endswith((".cpp", ".cu"))} - {*self.listed})

    def _on_disk(self) -> list[str]:
        names = (path.relative_to(self.root) for path in self.root.rglob("*.*"))
        return [str(name) for name in names if name.parts[0] not in NOT_IN_THE_MODULE]


def is_cuda(name: str) -> bool:
    """Whether a source is part of the CUDA backend: its kernels or their glue."""
    return "cuda" in name.split("/")[:-1] or name.endswith(".cu")


def in_module(name: str, module: str) -> bool:
    """Whether a source is linked into a native module. Kernels are in both."""
    return not name.startswith("ops/" if module == ENGINE else ENGINE_ALONE)


def find_root(package: Path) -> Path:
    """The csrc folder: inside an installed package, beside the package in a checkout."""
    installed = package / "csrc"
    return installed if installed.is_dir() else package.parent / "csrc"
