"""`python -m benchmarks cpu`: every figure of docs/performance.md, by one command."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medusa_ext import _C
from medusa_ext.cli.machine import MemoryReader
from medusa_ext.files import processor_fields, processor_name

from .attention import measure_attention
from .batches import BATCH_FORMATS, measure_batches
from .fastest import measure_fastest
from .format_table import FORMATS
from .formats import measure_formats
from .gguf_files import gguf_file
from .limits import Limits, ProbeError, measure_limits
from .overhead import measure_memory, measure_overhead
from .quality import measure_quality
from .requests import measure_requests
from .rows import Row
from .setting import FULL, QUICK, SECTIONS, Setting, Sizes


@dataclass(frozen=True)
class Report:
    """A run: where, with what, and its rows."""

    machine: dict[str, Any]
    peers: dict[str, str]
    sizes: Sizes
    limits: Limits | None
    rows: list[Row]

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "machine": self.machine,
            "peers": self.peers,
            "sizes": vars(self.sizes),
            "limits": vars(self.limits) if self.limits else None,
            "rows": [row.to_json() for row in self.rows],
        }


def measure_cpu(
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    files: Callable[[str], Path] = gguf_file,
    sizes: Sizes | None = None,
) -> Report:
    """Measures the sections named by `only`, or all. Uses the present number of threads.

    Raises ValueError for an unknown section and ModuleNotFoundError without the peers' packages.
    """
    unknown = sorted(set(only) - set(SECTIONS))
    if unknown:
        raise ValueError(f"--only: needs some of {', '.join(SECTIONS)}, got {unknown[0]!r}")
    import torch
    import xllamacpp  # noqa: F401  (a missing peer shows before anything is measured)

    threads = _C.num_threads()
    torch.set_num_threads(threads)
    sections = tuple(only) or SECTIONS
    setting = Setting(sizes or (QUICK if quick else FULL), sections, threads, files=files)
    setting.progress = tqdm(total=_num_parts(sections), unit="part", leave=False, disable=None)
    setting.begin("limits of the machine")
    setting.memory = MemoryReader(threads)
    try:
        setting.limits = measure_limits(_C.default_isa(), threads, setting.sizes.repeats + 2)
    except ProbeError as error:
        note = f"the machine's limits could not be measured: {error}"
        limits_rows = [Row("limits", "limits", None, "", note=note)]
    else:
        limits_rows = []
    rows = [*limits_rows, *_measure(setting)]
    setting.progress.close()
    return Report(_machine(threads), _peers(), setting.sizes, setting.limits, rows)


def _measure(setting: Setting) -> Iterator[Row]:
    yield from measure_formats(setting)
    yield from measure_overhead(setting)
    yield from measure_attention(setting)
    yield from measure_memory(setting)
    yield from measure_fastest(setting)
    yield from measure_batches(setting)
    yield from measure_requests(setting)
    yield from measure_quality(setting)


def _num_parts(sections: Sequence[str]) -> int:
    per_format = sum(name in sections for name in ("decode", "rows", "prefill"))
    per_format += "rest" in sections or "arithmetic" in sections
    others = {
        "overhead": 1,
        "attention": 1,
        "memory": 3,
        "fastest": 3,
        "batches": len(BATCH_FORMATS),
        "requests": 1,
        "quality": 5,
    }
    return 1 + per_format * len(FORMATS) + sum(others.get(name, 0) for name in sections)


def _machine(threads: int) -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "instruction set": _C.default_isa(),
        "memory, GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load at the end": os.getloadavg()[0],
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    fields = processor_fields()
    family = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
    return f"{processor_name()} ({family})" if fields else processor_name()


def _peers() -> dict[str, str]:
    import torch
    import transformers

    from .llama_cpp import version

    return {
        "llama.cpp": version(),
        "transformers": f"{transformers.__version__}, torch {torch.__version__}",
    }
