"""The cache of binaries compiled on the fly: a lock, atomic publishing and pruning."""

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

from .compile import compile_library, take_snapshot
from .settings import BuildError, Settings
from .toolchain import Compiler, Plan, find_compiler, key

INFO = "build_info.json"
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
    library = f"{plan.module}.so"
    try:
        compiler_key = key(find_compiler(settings).version)
        candidates = [folder / compiler_key]
    except BuildError:
        candidates = sorted(folder.glob("*")) if folder.is_dir() else []
    for candidate in candidates:
        if (candidate / library).is_file():
            info = json.loads((candidate / INFO).read_text())
            os.utime(candidate)
            return Binary(candidate / library, "on the fly", info)
    return None


def build(plan: Plan, settings: Settings) -> Binary:
    """Compiles `plan` into the cache, or waits for the process that does; returns the binary."""
    compiler = find_compiler(settings)
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
            found = _build_locked(plan, compiler, settings)
            _prune(folder)
        return found


def _build_locked(plan: Plan, compiler: Compiler, settings: Settings) -> Binary:
    folder = build_folder(settings)
    # Left by builds that were killed: whoever holds the lock is the only one at work here.
    for stale in folder.glob("tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=folder) as name:
        scratch = Path(name)
        plan = replace(plan, sources=take_snapshot(plan.sources.root, scratch))
        library = compile_library(plan, compiler, settings, folder / "objects", scratch)
        product = scratch / "product"
        product.mkdir()
        library.rename(product / library.name)
        info = describe(plan, compiler)
        (product / INFO).write_text(json.dumps(info, indent=1))
        target = folder / plan.name() / key(compiler.version)
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        product.rename(target)
    return Binary(target / library.name, "on the fly", info)


def describe(plan: Plan, compiler: Compiler) -> dict[str, Any]:
    """What is recorded beside a binary."""
    return {**plan.identity(), "cuda_reason": plan.cuda_reason, "compiler": compiler.version}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that the kernel lets go when its holder dies; says so when it has to wait."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            print(
                f"medusa_ext: waiting for process {holder}, which is compiling the extension",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _prune(folder: Path) -> None:
    """Removes the binaries and objects that were not used for longest."""
    binaries = sorted(folder.glob(f"*/*/{INFO}"), key=lambda path: path.parent.stat().st_mtime)
    for path in binaries[:-KEEP_BINARIES]:
        shutil.rmtree(path.parent, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.parent.parent.rmdir()
    for path in (folder / "objects").glob("*.o"):
        if time.time() - path.stat().st_mtime > KEEP_OBJECTS_SECONDS:
            path.unlink(missing_ok=True)
