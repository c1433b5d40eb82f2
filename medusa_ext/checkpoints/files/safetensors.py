"""Tensors of safetensors files as views on the mapped files; sharded checkpoints too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..checks import failure, read_json
from .weight import Bytes, WeightTensor, check_stored

INDEX_NAME: Final = "model.safetensors.index.json"
SINGLE_NAME: Final = "model.safetensors"


def open_safetensors(path: Path, framework: str = "pt") -> Any:
    """The safetensors library's handle on a file (memory-mapped, torch tensors or NumPy arrays).

    Raises ValueError naming the file if it is damaged, OSError if it cannot be opened.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found")
    try:
        return safe_open(path, framework=framework)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a valid safetensors file: {error}") from error


class SafetensorsCheckpoint(Mapping[str, WeightTensor]):
    """The tensors of one or several safetensors files by name, read when asked for."""

    def __init__(self, files: dict[Path, tuple[str, ...] | None]) -> None:
        """Opens files; each with the names taken from it, or None for all of them.

        Raises ValueError naming file and tensor if a listed tensor is not in its file.
        """
        self._stored: dict[str, tuple[dict[str, Any], Bytes, Path]] = {}
        for path, wanted in files.items():
            entries, data = _map(path)
            for name in entries if wanted is None else wanted:
                if name not in entries:
                    raise failure(path, f"tensor {name!r}", "to be there (the index says so)", None)
                self._stored[name] = (entries[name], data, path)

    @classmethod
    def from_directory(cls, directory: Path) -> SafetensorsCheckpoint:
        """The checkpoint of a model directory: its index's shards, its `model.safetensors`, or
        the only .safetensors file it has."""
        index = directory / INDEX_NAME
        if index.is_file():
            return cls(shards_of_index(index))
        single = directory / SINGLE_NAME
        if single.is_file():
            return cls({single: None})
        found = sorted(directory.glob("*.safetensors"))
        if len(found) != 1:
            need = f"{SINGLE_NAME}, or {INDEX_NAME} with its shards"
            raise failure(directory, "weights", need, [p.name for p in found])
        return cls({found[0]: None})

    def __getitem__(self, name: str) -> WeightTensor:
        entry, data, path = self._stored[name]
        storage, shape = entry["dtype"], tuple(entry["shape"])
        check_stored(path, name, storage, shape)
        begin, end = entry["data_offsets"]
        rows = shape[0] if len(shape) == 2 else 1
        return WeightTensor(name, shape, storage, data[begin:end].reshape(rows, -1), str(path))

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _map(path: Path) -> tuple[dict[str, dict[str, Any]], Bytes]:
    """The file's header, by tensor, and its data, mapped. NumPy has no bfloat16, so the bytes are
    taken as they lie there; the library has checked that every tensor is within them."""
    open_safetensors(path, "np")
    content = np.memmap(path, np.uint8, "r").view(np.ndarray)
    start = 8 + int(content[:8].view("<u8")[0])
    header = json.loads(content[8:start].tobytes())
    header.pop("__metadata__", None)
    return header, content[start:]


def shards_of_index(index: Path) -> dict[Path, tuple[str, ...] | None]:
    """The shards that an index names, each with its tensors; they must be beside the index."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise failure(index, "weight_map", "a non-empty object", weight_map)
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
            raise failure(index, f"weight_map[{name!r}]", "the name of a file beside it", shard)
        shards.setdefault(shard, []).append(name)
    return {index.parent / shard: tuple(names) for shard, names in shards.items()}
