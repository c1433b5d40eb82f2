"""Compiles a plan's sources in parallel and links them.

An object is named by a hash of all that it was made from, and appears under that name only when
it is complete. So a later build takes what an earlier, even a killed, one finished, and no clock
or half-written file can mislead it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .settings import BuildError, Settings
from .sources import NOT_IN_THE_MODULE, Sources, needs_python
from .toolchain import Compiler, Plan, host_command, key, link_command, nvcc_command

SNAPSHOT = "csrc"
POLL_SECONDS = 0.02
PLAIN_INTERVAL_SECONDS = 15.0
ERROR_LINES = 40


@dataclass
class Progress:
    """One line on stderr: rewritten on a terminal, repeated now and then in a log."""

    backends: str
    total: int
    stream: IO[str] = field(default_factory=lambda: sys.stderr)
    start: float = field(default_factory=time.monotonic)
    shown: float = float("-inf")
    width: int = 0

    def update(self, done: int, final: bool = False) -> None:
        """Shows `done` of `total`; a last line at the end."""
        now = time.monotonic()
        terminal = self.stream.isatty()
        if not final and now - self.shown < (0.2 if terminal else PLAIN_INTERVAL_SECONDS):
            return
        self.shown = now
        counts = f"{done}/{self.total}, {now - self.start:.0f} s"
        line = f"medusa_ext: {'compiled' if final else 'compiling'} the {self.backends} ({counts})"
        end = "\r" if terminal and not final else "\n"
        print(line.ljust(self.width), end=end, file=self.stream, flush=True)
        self.width = len(line)


@dataclass(frozen=True)
class Unit:
    """One source and the object that it becomes.

    The compiler runs in this build's own folder and sees relative paths only, so that the object
    does not depend on where that is.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    target: Path  # the object's place; written in `folder` first, then renamed

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the compiler; its messages go to a file."""
        command = [*self.command, f"{SNAPSHOT}/{self.name}", "-o", self.target.name]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def finish(self, status: int) -> None:
        """Puts the object in its place; raises BuildError if the compiler failed."""
        if status != 0:
            command = [*self.command, f"{SNAPSHOT}/{self.name}"]
            text = self.log.read_text(errors="replace")
            raise BuildError(_failure(f"compiling {self.name}", command, text))
        os.replace(self.folder / self.target.name, self.target)

    @property
    def log(self) -> Path:
        """Where the compiler's messages are."""
        return self.folder / f"{self.target.name}.log"


def compile_library(
    plan: Plan, compiler: Compiler, settings: Settings, objects: Path, scratch: Path
) -> Path:
    """Compiles and links `plan`; returns the library, in `scratch`.

    `objects` keeps objects for later builds; `scratch` is this build's own folder, with the
    plan's sources in it. Raises BuildError with the compiler's words if a file does not compile.
    """
    objects.mkdir(parents=True, exist_ok=True)
    units = [_unit(plan, compiler, name, objects, scratch) for name in plan.files()]
    missing = [unit for unit in units if not _reuse(unit.target)]
    # The slowest files (most likely the largest) first, so that none is left alone at the end.
    missing.sort(key=lambda unit: -(plan.sources.root / unit.name).stat().st_size)
    progress = Progress(plan.backends(), len(units))
    _run(missing, settings.num_jobs(), progress, done=len(units) - len(missing))
    library = scratch / f"{plan.module}.so"
    command = [*link_command(plan, compiler), "-o", str(library), *(str(u.target) for u in units)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(_failure("linking", command, result.stderr))
    progress.update(len(units), final=True)
    return library


def _unit(plan: Plan, compiler: Compiler, name: str, objects: Path, scratch: Path) -> Unit:
    versions = [compiler.version]
    if name.endswith(".cu"):
        assert plan.cuda is not None, name
        command = nvcc_command(plan.cuda, compiler, SNAPSHOT)
        versions.append(plan.cuda.version)
    else:
        command = host_command(plan, compiler, SNAPSHOT, name)
        versions += [plan.torch.version] if needs_python(name) else []
    digest = key([command, versions, plan.sources.object_digest(name)])
    target = objects / f"{name.replace('/', '.')}.{digest}.o"
    return Unit(name, (*compiler.launcher, *command), scratch, target)


def _reuse(target: Path) -> bool:
    """Whether the object is there; marks it as used, so that pruning keeps it."""
    try:
        os.utime(target)
    except FileNotFoundError:
        return False
    return True


def _run(waiting: Sequence[Unit], jobs: int, progress: Progress, done: int) -> None:
    """Runs the units, `jobs` at a time; on any exception no compiler is left behind."""
    queue = list(reversed(waiting))
    running: dict[Unit, subprocess.Popen[bytes]] = {}
    try:
        while queue or running:
            while queue and len(running) < jobs:
                unit = queue.pop()
                running[unit] = unit.start()
            for unit, process in list(running.items()):
                if process.poll() is not None:
                    del running[unit]
                    unit.finish(process.returncode)
                    done += 1
            progress.update(done)
            time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _failure(what: str, command: Sequence[str], text: str) -> str:
    lines = text.strip().splitlines()
    if len(lines) > ERROR_LINES:
        lines = [*lines[:ERROR_LINES], f"… {len(lines) - ERROR_LINES} more lines"]
    return "\n".join((f"medusa_ext: {what} failed:", *lines, "command: " + shlex.join(command)))


def take_snapshot(root: Path, scratch: Path) -> Sources:
    """Copies a csrc folder: a file edited meanwhile must not be compiled under its old hash."""
    ignored = shutil.ignore_patterns(*NOT_IN_THE_MODULE, ".*", "*~")
    shutil.copytree(root, scratch / SNAPSHOT, ignore=ignored)
    return Sources.read(scratch / SNAPSHOT)
