"""Tensors of safetensors files as views on the mapped files; sharded checkpoints too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..checks import failure, read_json
from .weight import WeightTensor

INDEX_NAME: Final = "model.safetensors.index.json"
SINGLE_NAME: Final = "model.safetensors"
_TORCH_DTYPES: Final = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float64": "F64",
}


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
        return tensor_from_torch(name, handle.get_tensor(name), str(path))

    def __contains__(self, name: object) -> bool:
        return name in self._handles

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)


def tensor_from_torch(name: str, tensor: Any, file: str) -> WeightTensor:
    """A torch tensor of one or two dimensions as a WeightTensor, on the same memory if contiguous.

    Raises ValueError naming file and tensor for other shapes and for types besides floats.
    """
    import torch

    storage = _TORCH_DTYPES.get(str(tensor.dtype))
    if storage is None:
        raise failure(file, f"type of {name!r}", "floating point", str(tensor.dtype))
    if not 1 <= tensor.dim() <= 2 or tensor.numel() == 0:
        need = "one or two non-empty dimensions"
        raise failure(file, f"shape of {name!r}", need, tuple(tensor.shape))
    rows = tensor.shape[0] if tensor.dim() == 2 else 1
    data = tensor.detach().contiguous().reshape(rows, -1).view(torch.uint8).numpy()
    return WeightTensor(name, tuple(tensor.shape), storage, data.astype(np.uint8, copy=False), file)


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
