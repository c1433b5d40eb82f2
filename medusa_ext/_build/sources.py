"""The native sources: which there are, and what a compiled object depends on."""

from __future__ import annotations

import hashlib
import re
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
HEADER_SUFFIXES = (".h", ".cuh", ".inc")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>|(\S+))', re.MULTILINE)


@dataclass(frozen=True)
class Sources:
    """A csrc folder: the files of its list, and its headers. Paths are relative to `root`."""

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

    def unlisted(self) -> list[str]:
        """Source files on disk that the list forgot."""
        return sorted(set(self._files(".cpp", ".cu")) - set(self.listed))

    @cached_property
    def headers(self) -> list[str]:
        """All headers that the sources may include."""
        return sorted(self._files(*HEADER_SUFFIXES))

    @cached_property
    def digest(self) -> str:
        """A hash over names and contents of every listed source and every header."""
        return self._hash([*self.listed, *self.headers])

    def object_digest(self, name: str) -> str:
        """A hash over one source and the headers that it includes, directly or not."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                waiting.extend(self._includes(current))
        return self._hash(sorted(seen))

    def _includes(self, name: str) -> list[str]:
        """Included files of this tree. An `#include MACRO` may be any header: all are taken."""
        found: list[str] = []
        for quoted, bracketed, macro in INCLUDE.findall((self.root / name).read_text()):
            if macro:
                return self.headers
            target = quoted or bracketed
            for path in (self.root / name).parent / target, self.root / target:
                resolved = path.resolve()
                if resolved.is_file() and resolved.is_relative_to(self.root.resolve()):
                    found.append(str(resolved.relative_to(self.root.resolve())))
                    break
        return found

    def _files(self, *suffixes: str) -> list[str]:
        files = (path for path in self.root.rglob("*") if path.suffix in suffixes)
        names = (path.relative_to(self.root) for path in files)
        return [str(name) for name in names if name.parts[0] not in NOT_IN_THE_MODULE]

    def _hash(self, names: list[str]) -> str:
        state = hashlib.sha256()
        for name in names:
            content = (self.root / name).read_bytes()
            state.update(f"{name}\0{len(content)}\0".encode() + content)
        return state.hexdigest()[:16]


def is_cuda(name: str) -> bool:
    """Whether a source is part of the CUDA backend: its kernels or their glue."""
    return "cuda" in name.split("/")[:-1] or name.endswith(".cu")


def in_module(name: str, module: str) -> bool:
    """Whether a source is linked into a native module. Kernels are in both."""
    return not name.startswith("ops/" if module == ENGINE else ENGINE_ALONE)


def needs_torch(name: str) -> bool:
    """Whether a source may include torch's headers."""
    return name.startswith("ops/")


def needs_python(name: str) -> bool:
    """Whether a source may include Python's headers and pybind11's."""
    return name.startswith(("ops/", "bindings/"))


def find_root(package: Path) -> Path:
    """The csrc folder: inside an installed package, beside the package in a checkout."""
    installed = package / "csrc"
    return installed if installed.is_dir() else package.parent / "csrc"
