"""Limits of the machine: memory's reads, and arithmetic on registers and out of the caches.

The arithmetic is that of the micro-benchmarks in csrc/benchmarks, which CMake builds.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from medusa_ext.cli.machine import MemoryReader

from . import CHECKOUT

# The named micro-benchmark of each weight format: the inner loop of its matrix kernel.
PEAK_NAMES: Final = {
    "float32": "float32 multiply-add tile",
    "int8": "int8 dot-product tile with group scales",
    "int4": "4-bit unpack and dot-product tile with group scales and minima",
}
PRODUCT_ROWS: Final = 16
_BUILD: Final = CHECKOUT / "build" / "cpp"
_PROGRAM: Final = "linear_bench"
_SECONDS: Final = 0.02


class ProbeError(RuntimeError):
    """The micro-benchmarks could not be built or run; the message says why."""


@dataclass(frozen=True)
class Limits:
    """Medians of several measurements with `threads` threads.

    `read`: bytes per second of streaming reads of memory. `peaks`, `products`: operations per
    second by weight format, a multiplication and an addition counting two: on registers alone, and
    of the plain products of a layer (QKV, O, down) with 16 rows and the weights in the caches.
    """

    isa: str
    threads: int
    read: float
    peaks: dict[str, float]
    products: dict[str, float]


def measure_limits(isa: str, threads: int, repeats: int = 7) -> Limits:
    """Takes some seconds and half a gigabyte, and minutes where the micro-benchmarks must be built.

    Raises ProbeError if they cannot be.
    """
    formats = "|".join(PEAK_NAMES)
    wanted = f"^peak/|^hot_[a-z]+/smollm2/({formats})/M:{PRODUCT_ROWS}/"
    found = _run(_build(), wanted, isa, threads, repeats)
    peaks = {name: found[f"peak/{isa}/{name}"][0] for name in PEAK_NAMES}
    with MemoryReader(threads) as read:
        reads = [read() for _ in range(repeats)]
    products = {name: _rate_of_products(found, name) for name in PEAK_NAMES}
    return Limits(isa, threads, median(reads), peaks, products)


def _rate_of_products(found: dict[str, tuple[float, float]], weights: str) -> float:
    """Operations per second of a layer's products, one after another."""
    of_format = [
        figures for name, figures in found.items() if name.startswith("hot_") and weights in name
    ]
    operations = sum(rate * seconds for rate, seconds in of_format)
    return operations / sum(seconds for _, seconds in of_format)


def _build() -> Path:
    """The micro-benchmarks' program, built anew if need be."""
    jobs = str(os.cpu_count() or 1)
    _call(["cmake", "-S", str(CHECKOUT), "-B", str(_BUILD)])
    _call(["cmake", "--build", str(_BUILD), "--target", _PROGRAM, "--parallel", jobs])
    return _BUILD / _PROGRAM


def _run(
    program: Path, wanted: str, isa: str, threads: int, repeats: int
) -> dict[str, tuple[float, float]]:
    """(operations per second, seconds) of each benchmark whose name fits `wanted`; medians."""
    options = {
        "filter": wanted,
        "format": "json",
        "min_time": _SECONDS,
        "repetitions": repeats,
        "enable_random_interleaving": "true",
        "report_aggregates_only": "true",
    }
    environment = os.environ | {"MEDUSA_ISA": isa, "MEDUSA_NUM_THREADS": str(threads)}
    arguments = [f"--benchmark_{name}={value}" for name, value in options.items()]
    report: dict[str, Any] = json.loads(_call([str(program), *arguments], environment))
    scale = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}
    found = {
        entry["run_name"].partition("/real_time")[0]: (
            1e9 * entry["GOP/s"],
            scale[entry["time_unit"]] * entry["real_time"],
        )
        for entry in report["benchmarks"]
        if entry["aggregate_name"] == "median"
    }
    if not any(name.startswith("peak/") for name in found):
        raise ProbeError(f"{program.name}: has no peaks for the instruction set {isa}")
    return found


def _call(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """What a program prints; ProbeError with the end of its output if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    except OSError as error:
        raise ProbeError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr)[-500:].split())
        raise ProbeError(f"{' '.join(command[:2])} failed (libbenchmark-dev is needed): {said}")
    return done.stdout
