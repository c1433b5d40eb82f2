"""The cache of binaries compiled on the fly: a lock, kept objects, atomic publishing, pruning.

`tmp-…` folders belong to the build at work, which holds the lock. Those that it finds were left by
builds that were killed, and what such a one was compiling is not to be trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .compile import compile_library
from .settings import BuildError, Settings
from .sources import LIST_NAME, Sources
from .toolchain import Compiler, Plan, check_tools, find_compiler, key

INFO = "build_info.json"
SNAPSHOT = "csrc"
KEEP_BINARIES = 8
KEEP_OBJECTS_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Binary:
    """A native module on disk and what was recorded when it was built."""

    path: Path
    origin: str  # "ahead of time" | "on the fly"
    info: dict[str, Any]


def build_folder(settings: Settings) -> Path:
    """Where binaries, objects and the lock are."""
    return settings.cache / "build"


def find(plan: Plan, settings: Settings) -> Binary | None:
    """The cached binary for this plan; without a compiler at hand, any compiler's will do."""
    folder = build_folder(settings) / plan.name()
    try:
        candidates = [folder / key(find_compiler(settings).version)]
    except BuildError:
        candidates = sorted(folder.glob("*"))
    for candidate in candidates:
        library = candidate / f"{plan.module}.so"
        if library.is_file():
            os.utime(candidate)
            return Binary(library, "on the fly", json.loads((candidate / INFO).read_text()))
    return None


def build(plan: Plan, settings: Settings) -> Binary:
    """Compiles `plan` into the cache, or waits for the process that does; returns the binary."""
    compiler = find_compiler(settings)
    check_tools()
    folder = build_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"medusa_ext: cannot write the cache {folder}: {error.strerror}; "
            "set MEDUSA_CACHE to a folder that can be written"
        ) from error
    with _locked(folder / "lock"):
        found = find(plan, settings)
        if found is None:
            _prune(folder)
            with _objects(folder, plan, compiler) as objects:
                plan = replace(plan, sources=take_snapshot(plan.sources, objects / SNAPSHOT))
                library = compile_library(plan, compiler, settings, objects)
                found = _publish(library, folder, plan, compiler)
        return found


@contextlib.contextmanager
def _objects(folder: Path, plan: Plan, compiler: Compiler) -> Iterator[Path]:
    """The folder that keeps a plan's objects, at work under the same path every time, as ninja
    compares commands. It goes back to its place unless the build is killed."""
    name = plan.objects_name(compiler)
    kept, work = folder / "objects" / name, folder / f"tmp-{name}"
    kept.mkdir(parents=True, exist_ok=True)
    kept.rename(work)
    # ninja goes by time, and by the headers that it saw: a new one may stand in for another.
    clock_set_back = any(path.stat().st_mtime > time.time() for path in work.glob("*.o"))
    if clock_set_back or _names_in(work / SNAPSHOT) != {*plan.sources.files, LIST_NAME}:
        shutil.rmtree(work)
        work.mkdir()
    try:
        yield work
    finally:
        os.utime(work)
        work.rename(kept)


def _names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def take_snapshot(sources: Sources, target: Path) -> Sources:
    """Copies what is compiled, lest a file that is edited meanwhile be compiled under its old hash;
    a file that `target` has is left alone, for ninja goes by time."""
    for name in (*sources.files, LIST_NAME):
        content, copy = (sources.root / name).read_bytes(), target / name
        if not copy.is_file() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    return Sources.read(target)


def _publish(library: Path, folder: Path, plan: Plan, compiler: Compiler) -> Binary:
    """Moves a library, with its description, to where `find` looks for it."""
    info = plan.description(compiler)
    product = Path(tempfile.mkdtemp(prefix="tmp-", dir=folder))
    library.rename(product / f"{plan.module}.so")
    (product / INFO).write_text(json.dumps(info, indent=1))
    target = folder / plan.name() / key(compiler.version)
    target.parent.mkdir(exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    product.rename(target)
    return Binary(target / f"{plan.module}.so", "on the fly", info)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that the kernel lets go when its holder dies; says so when it has to wait."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            what = f"process {file.read().strip() or 'unknown'}, which is compiling the extension"
            print(f"medusa_ext: waiting for {what}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _prune(folder: Path) -> None:
    """Removes what killed builds left, and the binaries and objects not used for longest."""
    for stale in list(folder.glob("tmp-*")):
        # Compilers may still be writing to it: under its new name they cannot disturb anyone.
        shutil.rmtree(stale.rename(tempfile.mkdtemp(prefix="tmp-", dir=folder)), ignore_errors=True)
    binaries = sorted(folder.glob(f"*/*/{INFO}"), key=lambda path: path.parent.stat().st_mtime)
    for path in binaries[: 1 - KEEP_BINARIES]:
        shutil.rmtree(path.parent, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.parent.parent.rmdir()
    for path in (folder / "objects").glob("*"):
        if time.time() - path.stat().st_mtime > KEEP_OBJECTS_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
