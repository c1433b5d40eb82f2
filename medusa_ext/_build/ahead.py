"""The ahead-of-time build, for setup.py."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from .cache import describe
from .compile import compile_library, take_snapshot
from .loader import AHEAD_OF_TIME_INFO
from .settings import Settings
from .sources import ENGINE
from .toolchain import find_compiler, make_plan


def build_ahead_of_time(
    root: Path, target: Path, work: Path, settings: Settings, module: str = ENGINE
) -> None:
    """Compiles a module of the csrc folder `root` to the file `target` and records how, beside it.

    `work` keeps objects between builds.
    """
    plan = make_plan(root, settings, module)
    for name in plan.sources.unlisted():
        print(f"medusa_ext: csrc/{name} is not in csrc/sources.txt", file=sys.stderr)
    compiler = find_compiler(settings)
    work.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=work) as name:
        scratch = Path(name)
        plan = replace(plan, sources=take_snapshot(root, scratch))
        library = compile_library(plan, compiler, settings, work / "objects", scratch)
        # Renamed into place: a process that has the old file open keeps it.
        fresh = target.with_suffix(".tmp")
        shutil.copy(library, fresh)
        fresh.replace(target)
        info = json.dumps(describe(plan, compiler), indent=1)
        (target.parent / AHEAD_OF_TIME_INFO).write_text(info)
