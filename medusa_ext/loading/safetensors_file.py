"""Tensors of safetensors files as views on the mapped files; sharded checkpoints too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from .checks import failure, read_json
from .weight_tensor import WeightTensor

INDEX_NAME: Final = "model.safetensors.index.json"
SINGLE_NAME: Final = "model.safetensors"
_FLOATS: Final = ("F32", "F16", "BF16", "F64")


def open_safetensors(path: Path) -> Any:
    """The safetensors library's handle on a file (memory-mapped, torch tensors).

    Raises ValueError naming the file if it is damaged, OSError if it cannot be opened.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: not a valid safetensors file: {error}") from error


class SafetensorsCheckpoint(Mapping[str, WeightTensor]):
    """The tensors of one or several safetensors files by name, read when asked for."""

    def __init__(self, files: dict[Path, tuple[str, ...] | None]) -> None:
        """Opens files; each with the names taken from it, or None for all of them.

        Raises ValueError naming file and tensor if a listed tensor is not in its file.
        """
        self._handles: dict[str, tuple[Any, Path]] = {}
        for path, wanted in files.items():
            handle = open_safetensors(path)
            present = set(handle.keys())
            for name in present if wanted is None else wanted:
                if name not in present:
                    raise failure(path, f"tensor {name!r}", "to be there (the index says so)", None)
                self._handles[name] = (handle, path)

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
        handle, path = self._handles[name]
        piece = handle.get_slice(name)
        shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
        if dtype not in _FLOATS:
            raise failure(path, f"type of {name!r}", f"one of {_FLOATS}", dtype)
        if not 1 <= len(shape) <= 2 or 0 in shape:
            raise failure(path, f"shape of {name!r}", "one or two non-empty dimensions", shape)
        return tensor_from_torch(name, handle.get_tensor(name), dtype, str(path))

    def __contains__(self, name: object) -> bool:
        return name in self._handles

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)


def tensor_from_torch(name: str, tensor: Any, dtype: str, file: str) -> WeightTensor:
    """A contiguous torch tensor of one or two dimensions as a WeightTensor on the same memory."""
    import torch

    rows = tensor.shape[0] if tensor.dim() == 2 else 1
    data = tensor.reshape(rows, -1).view(torch.uint8).numpy()
    return WeightTensor(name, tuple(tensor.shape), dtype, data.astype(np.uint8, copy=False), file)


def shards_of_index(index: Path) -> dict[Path, tuple[str, ...] | None]:
    """The shards that an index names, each with its tensors; a shard must lie beside the index."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise failure(index, "weight_map", "a non-empty object", weight_map)
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
            raise failure(index, f"weight_map[{name!r}]", "the name of a file beside it", shard)
        shards.setdefault(shard, []).append(name)
    return {index.parent / shard: tuple(names) for shard, names in shards.items()}
