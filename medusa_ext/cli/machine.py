"""What the machine can do: the limits that speeds are compared with."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np

from ..files import processor_name

_READ_BYTES: Final = 512 << 20  # far beyond any cache's share of one process
_MATRIX: Final = 1024
_REPEATS: Final = 5


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
    with MemoryReader(threads) as read:
        bandwidth = median(read() for _ in range(_REPEATS))
    return Machine(processor_name(), os.cpu_count() or 1, threads, bandwidth, float32_flops())


class MemoryReader:
    """Bytes per second of reading half a gigabyte once, every time it is called; each thread reads
    a part of its own.

    A machine shared with others has another bandwidth every minute: what is compared with it takes
    turns with it.
    """

    def __init__(self, threads: int) -> None:
        self._parts = np.array_split(np.ones(_READ_BYTES // 8, dtype=np.int64), threads)
        self._pool = ThreadPoolExecutor(threads)
        self()

    def __call__(self) -> float:
        return _READ_BYTES / _seconds_of(lambda: list(self._pool.map(np.max, self._parts)))

    def __enter__(self) -> MemoryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def float32_flops() -> float:
    """Operations per second of a float32 matrix product."""
    a = np.ones((_MATRIX, _MATRIX), dtype=np.float32)
    _seconds_of(lambda: a @ a)
    return 2 * _MATRIX**3 / median(_seconds_of(lambda: a @ a) for _ in range(_REPEATS))


def _seconds_of(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start
