"""Limits of the machine by native probes: DRAM reads, and arithmetic on registers alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np

from .native import limits_library, profile_library

FORMAT_CODES: Final = {"float32": 0, "bfloat16": 1, "float16": 2, "int8": 3, "int4": 4}
# The named micro-benchmark of each weight format: the inner loop of its matrix kernel.
PEAK_NAMES: Final = {
    "float32": "float32 multiply-add tile",
    "int8": "int8 dot-product tile with group scales",
    "int4": "4-bit unpack and dot-product tile with group scales and minima",
}
_READ_BYTES: Final = 512 << 20
_PEAK_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Limits:
    """Medians of several measurements with `threads` threads.

    `read`: bytes per second of streaming reads of memory. `peaks`: operations per second by weight
    format, a multiplication and an addition counting two.
    """

    isa: str
    threads: int
    read: float
    peaks: dict[str, float]


def measure_limits(isa: str, threads: int, repeats: int = 7) -> Limits:
    """Takes about two seconds and half a gigabyte. Raises ProbeError without a compiler."""
    library = limits_library(isa)
    with ThreadPoolExecutor(threads) as pool:
        on_all = partial(_seconds_on_all, pool, threads)
        on_all(lambda _: None)
        peaks = {name: _peak(library, name, on_all, threads, repeats) for name in PEAK_NAMES}
    with MemoryReader(isa, threads) as read:
        return Limits(isa, threads, median(read() for _ in range(repeats)), peaks)


def _seconds_on_all(pool: ThreadPoolExecutor, threads: int, work: Callable[[int], Any]) -> float:
    start = perf_counter()
    list(pool.map(work, range(threads)))
    return perf_counter() - start


def _peak(
    library: ctypes.CDLL, name: str, on_all: Callable[[Any], float], threads: int, repeats: int
) -> float:
    code = ctypes.c_int32(FORMAT_CODES[name])
    operations = library.medusa_probe_operations(code)

    def seconds(iterations: int) -> float:
        count = ctypes.c_int64(iterations)
        return on_all(lambda _: library.medusa_probe_peak(code, count))

    iterations = 1000
    while (taken := seconds(iterations)) < _PEAK_SECONDS / 4:
        iterations *= 2
    iterations = max(int(iterations * _PEAK_SECONDS / taken), 1)
    times = [seconds(iterations) for _ in range(repeats)]
    return float(operations * iterations * threads / median(times))


class MemoryReader:
    """Bytes per second of one streaming read of half a gigabyte, every time it is called.

    A machine shared with others has another bandwidth every minute: what is compared with it takes
    turns with it. Raises ProbeError without a compiler.
    """

    def __init__(self, isa: str, threads: int) -> None:
        self._library = limits_library(isa)
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        self._part = _READ_BYTES // threads // 256 * 256
        self._data = np.ones(_READ_BYTES // 8, dtype=np.int64)
        self()

    def __call__(self) -> float:
        seconds = _seconds_on_all(self._pool, self._threads, self._read)
        return self._part * self._threads / seconds

    def _read(self, thread: int) -> None:
        start = ctypes.c_void_p(self._data.ctypes.data + thread * self._part)
        self._library.medusa_probe_read(start, ctypes.c_int64(self._part))

    def __enter__(self) -> MemoryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


@dataclass(frozen=True)
class StepParts:
    """Median seconds of a forward and of its matrix products and attention, by rows.

    `cached`: seconds of the layers' plain matrix products run again at once, their weights in the
    caches; `cached_operations`: how many operations these are.
    """

    total: dict[int, float]
    products: dict[int, float]
    attention: dict[int, float]
    cached: dict[int, float]
    cached_operations: dict[int, float]

    def rest_share(self, rows: int) -> float:
        """The share of everything else."""
        return 1.0 - (self.products[rows] + self.attention[rows]) / self.total[rows]


def profile_step(
    isa: str,
    shape: Sequence[int],
    formats: tuple[str, str],
    threads: int,
    *,
    length: int,
    rows: Sequence[int],
    repeats: int,
) -> StepParts:
    """Times a decoder of the given shape inside.

    Args:
        shape: layers, hidden size, query heads, KV heads, head size, FFN size, vocabulary.
        formats: of the layers' matrices and of the tied embedding.
        length: cached rows before the forward's.

    Raises ProbeError without a compiler, or with the decoder's own words.
    """
    from .native import ProbeError

    library = profile_library()
    counts = np.asarray(rows, dtype=np.int32)
    out = np.zeros((repeats, len(counts), 5))
    message = ctypes.create_string_buffer(1024)
    status = library.medusa_step_profile(
        isa.encode(),
        np.asarray(shape, dtype=np.int32).ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int32(FORMAT_CODES[formats[0]]),
        ctypes.c_int32(FORMAT_CODES[formats[1]]),
        ctypes.c_int32(threads),
        ctypes.c_int32(length),
        counts.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int32(len(counts)),
        ctypes.c_int32(repeats),
        out.ctypes.data_as(ctypes.c_void_p),
        message,
        ctypes.c_int64(len(message)),
    )
    if status != 0:
        raise ProbeError(f"step_profile: {message.value.decode(errors='replace')}")
    medians = np.median(out, axis=0)
    columns = [
        dict(zip(map(int, counts), map(float, medians[:, i]), strict=True)) for i in range(5)
    ]
    return StepParts(*columns)
