"""What the machine can do: the limits that speeds are compared with."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ..files import processor_name

_STREAM_BYTES = 256 << 20  # far beyond any cache's share of one process
_MATRIX = 1024
_REPEATS = 5


@dataclass(frozen=True)
class Machine:
    """Limits measured in this process.

    `read_bytes_per_second`: streaming reads of memory with `threads` threads.
    `float32_flops`: a large float32 matrix product of numpy's BLAS with its own threads.
    """

    processor: str
    cores: int
    threads: int
    read_bytes_per_second: float
    float32_flops: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def measure_machine(threads: int) -> Machine:
    """Measures the limits; takes about two seconds and half a gigabyte of memory."""
    return Machine(
        processor_name(),
        os.cpu_count() or 1,
        threads,
        read_bandwidth(threads),
        float32_flops(),
    )


def read_bandwidth(threads: int) -> float:
    """Bytes per second of reading memory once, each thread a part of its own."""
    parts = np.array_split(np.ones(_STREAM_BYTES // 8, dtype=np.int64), threads)
    with ThreadPoolExecutor(threads) as pool:
        return _STREAM_BYTES / _median_seconds(lambda: list(pool.map(np.max, parts)))


def float32_flops() -> float:
    """Operations per second of a float32 matrix product."""
    a = np.ones((_MATRIX, _MATRIX), dtype=np.float32)
    return 2 * _MATRIX**3 / _median_seconds(lambda: a @ a)


def _median_seconds(work: Any) -> float:
    work()
    times = []
    for _ in range(_REPEATS):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return median(times)
