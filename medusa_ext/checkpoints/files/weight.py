"""One weight of a checkpoint: raw rows on the mapped file, or float32 rows on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..checks import failure

Bytes = npt.NDArray[np.uint8]

# Formats that the packer reads as they are, under these names (csrc/core/source_type.h); every
# other one is presented as F16.
NATIVE_DTYPES: Final = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")

# GGML's types: number in the file -> (name, elements per block, bytes per block).
GGML_TYPES: Final[dict[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
BLOCK_SIZES: Final = {name: (elements, size) for name, elements, size in GGML_TYPES.values()}

_CHUNK_BYTES: Final = 4 << 20


def row_bytes(dtype: str, columns: int) -> int:
    """Bytes of a row of `columns` elements; ValueError if it is not a whole number of blocks."""
    elements, size = BLOCK_SIZES[dtype]
    if columns % elements:
        raise ValueError(f"rows of {dtype} need a multiple of {elements} elements, got {columns}")
    return columns // elements * size


def check_stored(file: str | Path, name: str, storage: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError naming file and tensor for types besides floats, and for shapes besides
    one or two dimensions."""
    if storage not in ("F32", "F16", "BF16", "F64"):
        raise failure(file, f"type of {name!r}", "floating point", storage)
    if not 1 <= len(shape) <= 2 or 0 in shape:
        raise failure(file, f"shape of {name!r}", "one or two non-empty dimensions", shape)


@dataclass(frozen=True)
class WeightTensor:
    """A matrix [rows, columns] or a vector [columns] (one row) of a checkpoint.

    `dtype` is the format `rows` hands out, one of NATIVE_DTYPES; `storage` is the file's own,
    another one where the file's format is converted row by row on the way (to F16, so that no
    second copy of the tensor exists). `data` [rows, bytes of a row] is a view on the mapped file;
    `row_order`, if set, maps row i of the tensor to row `row_order[i]` of `data`.
    """

    name: str
    shape: tuple[int, ...]
    storage: str
    data: Bytes
    file: str
    row_order: npt.NDArray[np.int64] | None = None

    @property
    def dtype(self) -> str:
        """The format of the bytes that `rows` returns."""
        return self.storage if self.storage in NATIVE_DTYPES else "F16"

    @property
    def num_rows(self) -> int:
        """Rows of the matrix; a vector is one row."""
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def num_columns(self) -> int:
        """Elements of a row."""
        return self.shape[-1]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as `rows` returns it."""
        return row_bytes(self.dtype, self.num_columns)

    def rows(self, start: int = 0, stop: int | None = None) -> Bytes:
        """Rows [start, stop) as contiguous bytes [n, row_bytes] in `dtype`'s block layout.

        A view on the mapped file where nothing has to be converted or reordered.
        """
        if self.storage in NATIVE_DTYPES:
            return self._stored_rows(start, stop)
        with np.errstate(over="ignore"):
            half = self.to_float(start, stop).astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(
                f"{self.file}: {self.name} ({self.storage}): converting to F16 needs finite values "
                f"of magnitude up to 65504, got others in rows {start} to {stop}"
            )
        return half.view(np.uint8)

    def to_float(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """Rows [start, stop) as float32 [n, columns]."""
        raw = self._stored_rows(start, stop)
        if self.storage == "F32":
            return raw.view(np.float32)
        if self.storage == "F16":
            return raw.view(np.float16).astype(np.float32)
        if self.storage == "BF16":
            return (raw.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
        if self.storage == "F64":
            with np.errstate(over="ignore"):
                return raw.view(np.float64).astype(np.float32)
        try:
            return _dequantize(raw, self.storage, self.num_columns)
        except (KeyError, NotImplementedError) as error:
            raise ValueError(
                f"{self.file}: {self.name}: type {self.storage} needs a newer gguf package"
            ) from error

    def chunks(self, max_bytes: int = _CHUNK_BYTES) -> Iterator[tuple[int, int]]:
        """Row ranges (start, stop) whose float32 form takes at most `max_bytes` each."""
        step = max(1, max_bytes // (4 * self.num_columns))
        for start in range(0, self.num_rows, step):
            yield start, min(start + step, self.num_rows)

    def with_row_order(self, order: npt.NDArray[np.int64]) -> WeightTensor:
        """The same tensor with row i taken from row order[i]; a vector's elements likewise."""
        if len(self.shape) == 2:
            return replace(self, row_order=order)
        values = self.to_float()[:, order]
        return replace(self, storage="F32", data=np.ascontiguousarray(values).view(np.uint8))

    def _stored_rows(self, start: int, stop: int | None) -> Bytes:
        if self.row_order is not None:
            return self.data[self.row_order[start:stop]]
        return np.ascontiguousarray(self.data[start:stop])


def _dequantize(raw: Bytes, storage: str, columns: int) -> npt.NDArray[np.float32]:
    """GGML blocks [n, bytes] to float32 [n, columns] by the gguf package's own arithmetic."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):
        values = dequantize(raw, GGMLQuantizationType[storage])
    return np.ascontiguousarray(values, dtype=np.float32).reshape(raw.shape[0], columns)
