"""Has torch compile and link a plan: `torch.utils.cpp_extension.load`, in a process of its own.

So the process that imports a native module needs neither torch nor setuptools in it, and what torch
reads from the environment is set for that one process.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Any

from .settings import BuildError, Settings
from .toolchain import HOST_FLAGS, LINK_FLAGS, NVCC_FLAGS, Compiler, Plan

# Both modules are linked under this name in the folder they share, so that torch's flags, which
# have it in them, are the same for both, and so are the kernels' objects.
LIBRARY = "medusa_ext"
UNITS = "units"
PLAIN_INTERVAL_SECONDS = 15.0
ERROR_LINES = 40
STEP = re.compile(r"\[(\d+)/(\d+)\] ")
NEXT = re.compile(r"\[\d+/\d+\] |ninja: ")
FAILED = re.compile(r"FAILED: (?:\[code=\d+\] )?(\S+)")


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


def compile_library(plan: Plan, compiler: Compiler, settings: Settings, folder: Path) -> Path:
    """Compiles and links `plan` in `folder`, which keeps objects; returns the library there.

    Raises BuildError with the compiler's words if a file does not compile.
    """
    units = _write_units(plan, folder / UNITS)
    link_flags = map(shlex.quote, plan.link_flags(folder))
    arguments = {
        "name": LIBRARY,
        "sources": [str(path) for path in units.values()],
        "extra_cflags": [*compiler.command[1:], *HOST_FLAGS],
        "extra_cuda_cflags": list(NVCC_FLAGS),
        "extra_ldflags": [*compiler.command[1:], *LINK_FLAGS, *link_flags],
        "extra_include_paths": [str(path) for path in plan.include_directories()],
        "build_directory": str(folder),
        "verbose": True,
        "with_cuda": plan.cuda is not None,
        "is_python_module": False,
    }
    (folder / "lock").unlink(missing_ok=True)  # torch's own, left by a build that was interrupted
    progress = Progress(plan.backends(), len(units))
    failed, words = _load(arguments, folder, torch_environment(plan, compiler, settings), progress)
    if failed:
        raise BuildError(_failure(words, units))
    progress.update(len(units), final=True)
    return folder / f"{LIBRARY}.so"


def _load(
    arguments: dict[str, Any], folder: Path, environment: dict[str, str], progress: Progress
) -> tuple[bool, list[str]]:
    """Runs torch's `load` and shows how far it is; whether it failed, and its output."""
    progress.update(0)
    words: list[str] = []
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("torch_load.py")), json.dumps(arguments)],
        env={**os.environ, **environment},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                words.append(line.rstrip())
                if step := STEP.match(line):  # of those that have to be done, and the linking
                    left = int(step[2]) - int(step[1])
                    progress.update(progress.total - max(left - 1, 0))
        except BaseException:
            # The output ends when ninja does, which takes its compilers with it.
            os.killpg(process.pid, signal.SIGTERM)
            process.stdout.read()
            raise
    return process.returncode != 0, words


def torch_environment(plan: Plan, compiler: Compiler, settings: Settings) -> dict[str, str]:
    """What torch's cpp_extension reads from the environment."""
    import ninja

    environment = {
        "PATH": os.pathsep.join(filter(None, (os.environ.get("PATH"), ninja.BIN_DIR))),
        "CXX": compiler.command[0],
        "CC": compiler.command[0],  # nvcc's host compiler
        "MAX_JOBS": str(settings.num_jobs()),
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
    }
    if plan.cuda:
        environment["CUDA_HOME"] = str(plan.cuda.home)
        environment["TORCH_CUDA_ARCH_LIST"] = ";".join(plan.cuda.arches)
    return environment


def _write_units(plan: Plan, folder: Path) -> dict[str, Path]:
    """A file for each source, which includes it and has its whole path for a name: `load` names
    objects by the last part alone. The slowest files (most likely the largest) come first."""
    folder.mkdir(exist_ok=True)
    root = plan.sources.root
    names = sorted(plan.files(), key=lambda name: -(root / name).stat().st_size)
    units = {name: folder / name.replace("/", ".") for name in names}
    for name, unit in units.items():
        if not unit.exists():
            unit.write_text(f'#include "{name}"\n')
    return units


def _failure(words: Sequence[str], units: Mapping[str, Path]) -> str:
    """What ninja printed of the first step that failed, else the last of what torch said."""
    for index, line in enumerate(words):
        if found := FAILED.match(line):
            stem = found[1].removesuffix(".o").removesuffix(".cuda")
            failed = [name for name, unit in units.items() if unit.stem == stem]
            what = f"compiling {failed[0]}" if failed else "linking"
            said = takewhile(lambda one: not NEXT.match(one), words[index + 2 :])
            lines = [f"medusa_ext: {what} failed:", *islice(said, ERROR_LINES)]
            return "\n".join((*lines, f"command: {words[index + 1]}"))
    return "\n".join(("medusa_ext: compiling failed:", *words[-ERROR_LINES:]))
