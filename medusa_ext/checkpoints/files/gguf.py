"""A bounded reader of GGUF files: metadata and tensors as views on the mapped file.

Written for untrusted bytes: every count and offset is checked against the file before anything
is allocated, so a truncated or corrupt file ends in a ValueError that names file, place, need
and value. The layout is ggml's `docs/gguf.md`, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..checks import failure
from .weight import GGML_TYPES, WeightTensor

MAGIC: Final = b"GGUF"
MAX_METADATA_BYTES: Final = 256 << 20
MAX_KEYS: Final = 1 << 16
MAX_TENSORS: Final = 1 << 17
MAX_STRING: Final = 16 << 20
MAX_KEY_LENGTH: Final = 1 << 12
MAX_STRINGS: Final = 1 << 22
MAX_ALIGNMENT: Final = 1 << 20

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[dict[int, str]] = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do, whatever its name."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class _Cursor:
    """A position in the file that never passes its end."""

    def __init__(self, mapped: mmap.mmap, where: Path) -> None:
        self.view = memoryview(mapped)
        self.where = where
        self.position = 0
        self.end = min(len(mapped), MAX_METADATA_BYTES)

    def take(self, count: int, what: str) -> int:
        """Skips `count` bytes and returns where they start."""
        start = self.position
        if count > self.end - start:
            raise failure(
                self.where, what, f"{count} bytes at offset {start}", f"{self.end - start} left"
            )
        self.position = start + count
        return start

    def integer(self, layout: str, size: int, what: str) -> int:
        value = struct.unpack_from(layout, self.view, self.take(size, what))[0]
        return int(value)

    def u32(self, what: str) -> int:
        return self.integer("<I", 4, what)

    def count(self, what: str, limit: int) -> int:
        """A 64-bit count of at most `limit`."""
        value = self.integer("<Q", 8, what)
        if value > limit:
            raise failure(self.where, what, f"at most {limit}", value)
        return value

    def bytes_of_string(self, what: str, limit: int) -> bytes:
        length = self.count(f"length of {what}", limit)
        start = self.take(length, what)
        return bytes(self.view[start : start + length])

    def string(self, what: str, limit: int = MAX_STRING) -> str:
        raw = self.bytes_of_string(what, limit)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise failure(self.where, what, "UTF-8 text", raw[:40]) from error


class GgufFile(Mapping[str, WeightTensor]):
    """An opened GGUF file: its tensors by name, in file order.

    `metadata` maps a key to an int, float, bool, str, a list of str, or a numpy view of numbers.
    """

    def __init__(self, path: Path) -> None:
        """Maps the file and reads its header.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is not a GGUF file this reader accepts, or it is damaged.
        """
        self.path = path
        if path.stat().st_size < 24:
            raise failure(path, "file size", "a GGUF header (24 bytes)", path.stat().st_size)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._data: npt.NDArray[np.uint8] = np.frombuffer(mapped, dtype=np.uint8)
        cursor = _Cursor(mapped, path)
        num_tensors, num_keys = _read_counts(cursor)
        self.metadata: dict[str, Any] = {}
        for index in range(num_keys):
            key = cursor.string(f"name of key {index}", MAX_KEY_LENGTH)
            if key in self.metadata:
                raise failure(path, f"key {key!r}", "to occur once", "it twice")
            self.metadata[key] = _read_value(cursor, key)
        self.metadata_end = cursor.position
        infos = [_read_tensor_info(cursor, i) for i in range(num_tensors)]
        self._tensors = self._place(infos, cursor.position)

    def __getitem__(self, name: str) -> WeightTensor:
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def metadata_bytes(self) -> bytes:
        """The header up to the tensor table, as it stands in the file (for hashing)."""
        return self._data[: self.metadata_end].tobytes()

    def _place(self, infos: list[_TensorInfo], table_end: int) -> dict[str, WeightTensor]:
        """Finds each tensor's bytes; they must be in the file, aligned, and must not overlap."""
        alignment = self.metadata.get("general.alignment", 32)
        valid = isinstance(alignment, int) and 8 <= alignment <= MAX_ALIGNMENT
        if not valid or alignment & (alignment - 1):
            need = f"a power of two in [8, {MAX_ALIGNMENT}]"
            raise failure(self.path, "general.alignment", need, alignment)
        base = (table_end + alignment - 1) // alignment * alignment
        tensors: dict[str, WeightTensor] = {}
        spans: list[tuple[int, int, str]] = []
        for info in infos:
            if info.name in tensors:
                raise failure(self.path, f"tensor {info.name!r}", "to occur once", "it twice")
            if info.offset % alignment:
                need = f"an offset that is a multiple of {alignment}"
                raise failure(self.path, f"tensor {info.name!r}", need, info.offset)
            start = base + info.offset
            if start + info.num_bytes > len(self._data):
                raise failure(
                    self.path,
                    f"tensor {info.name!r}",
                    f"{info.num_bytes} bytes at offset {start}",
                    f"a file of {len(self._data)} bytes",
                )
            spans.append((start, start + info.num_bytes, info.name))
            data = self._data[start : start + info.num_bytes]
            rows = info.shape[0] if len(info.shape) == 2 else 1
            tensors[info.name] = WeightTensor(
                info.name, info.shape, info.dtype, data.reshape(rows, -1), str(self.path)
            )
        spans.sort()
        for (_, end, name), (start, _, following) in pairwise(spans):
            if start < end:
                need = f"its bytes apart from those of {name!r}"
                raise failure(self.path, f"tensor {following!r}", need, "an overlap")
        return tensors


@dataclass(frozen=True)
class _TensorInfo:
    """A checked entry of the tensor table; `shape` is row-major (GGML's reversed)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    num_bytes: int


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    """Magic and version checked; the numbers of tensors and of keys."""
    magic = bytes(cursor.view[cursor.take(4, "magic") : 4])
    if magic != MAGIC:
        raise failure(cursor.where, "magic", repr(MAGIC), magic)
    version = cursor.u32("version")
    if version not in (2, 3):
        raise failure(cursor.where, "GGUF version", "2 or 3, little-endian", version)
    num_tensors = cursor.count("number of tensors", MAX_TENSORS)
    return num_tensors, cursor.count("number of metadata keys", MAX_KEYS)


def _read_value(cursor: _Cursor, key: str) -> Any:
    kind = cursor.u32(f"type of {key!r}")
    if kind == _STRING:
        return cursor.string(repr(key))
    if kind == _ARRAY:
        return _read_array(cursor, key)
    if kind not in _SCALARS:
        raise failure(cursor.where, f"type of {key!r}", "a GGUF value type 0 to 12", kind)
    dtype = np.dtype(_SCALARS[kind])
    start = cursor.take(dtype.itemsize, repr(key))
    return np.frombuffer(cursor.view, dtype, 1, start)[0].item()


def _read_array(cursor: _Cursor, key: str) -> Any:
    kind = cursor.u32(f"element type of {key!r}")
    if kind == _STRING:
        length = cursor.count(f"length of {key!r}", MAX_STRINGS)
        if 8 * length > cursor.end - cursor.position:
            need = f"{length} strings at offset {cursor.position}"
            raise failure(cursor.where, repr(key), need, f"{cursor.end - cursor.position} bytes")
        return [cursor.string(f"{key}[{i}]") for i in range(length)]
    if kind not in _SCALARS:
        need = "numbers or strings (nested arrays are not supported)"
        raise failure(cursor.where, f"element type of {key!r}", need, kind)
    dtype = np.dtype(_SCALARS[kind])
    length = cursor.count(f"length of {key!r}", MAX_METADATA_BYTES)
    start = cursor.take(length * dtype.itemsize, repr(key))
    return np.frombuffer(cursor.view, dtype, length, start)


def _read_tensor_info(cursor: _Cursor, index: int) -> _TensorInfo:
    name = cursor.string(f"name of tensor {index}", MAX_KEY_LENGTH)
    what = f"tensor {name!r}"
    num_dims = cursor.u32(f"dimensions of {what}")
    if not 1 <= num_dims <= 4:
        raise failure(cursor.where, f"dimensions of {what}", "1 to 4", num_dims)
    dims = [cursor.count(f"{what}, dimension {i}", 1 << 40) for i in range(num_dims)]
    kind = cursor.u32(f"type of {what}")
    offset = cursor.count(f"offset of {what}", 1 << 62)
    if 0 in dims:
        raise failure(cursor.where, f"shape of {what}", "no empty dimension", dims)
    if kind not in GGML_TYPES:
        raise failure(cursor.where, f"type of {what}", "a known GGML type number", kind)
    dtype, elements, size = GGML_TYPES[kind]
    if dims[0] % elements:
        need = f"rows of a multiple of {elements} elements ({dtype})"
        raise failure(cursor.where, what, need, dims[0])
    shape = _row_major(dims)
    num_bytes = dims[0] // elements * size * (shape[0] if len(shape) == 2 else 1)
    return _TensorInfo(name, shape, dtype, offset, num_bytes)


def _row_major(dims: list[int]) -> tuple[int, ...]:
    """GGML's dimensions, innermost first, as (rows, columns) or (columns,); further
    dimensions are folded into the rows."""
    if len(dims) == 1:
        return (dims[0],)
    rows = 1
    for dim in dims[1:]:
        rows *= dim
    return (rows, dims[0])
