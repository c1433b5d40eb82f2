"""Finding a heads checkpoint's files and opening their tensors by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..checks import failure, read_json
from ..files.safetensors import open_safetensors, shards_of_index
from ..files.torch import load_torch_tensors

if TYPE_CHECKING:
    import torch

# Where a directory keeps its heads, best first. The last four hold whole models or vLLM's heads.
_CANDIDATES: Final = (
    "medusa_lm_head.safetensors",
    "medusa_lm_head.pt",
    "medusa_lm_head.bin",
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_SUFFIXES: Final = (".safetensors", ".pt", ".bin", ".pth")


class HeadTensors(Mapping[str, "torch.Tensor"]):
    """Tensors by name from one or several files; a file is opened when first needed."""

    def __init__(self, files: dict[Path, tuple[str, ...] | None]) -> None:
        """Files, each with the names to take from it, or None for all of them."""
        self._owner: dict[str, Path] = {}
        self._opened: dict[Path, Any] = {}
        for path, names in files.items():
            for name in self._open(path).keys() if names is None else names:
                self._owner[name] = path

    def _open(self, path: Path) -> Any:
        if path not in self._opened:
            safetensors = path.suffix == ".safetensors"
            self._opened[path] = open_safetensors(path) if safetensors else load_torch_tensors(path)
        return self._opened[path]

    def __getitem__(self, name: str) -> torch.Tensor:
        path = self._owner[name]
        opened = self._open(path)
        if name not in opened.keys():
            raise failure(path, f"tensor {name!r}", "to be there (the index says so)", None)
        tensor: torch.Tensor = opened[name] if isinstance(opened, dict) else opened.get_tensor(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._owner

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner)

    def __len__(self) -> int:
        return len(self._owner)


@dataclass(frozen=True)
class HeadFiles:
    """An opened heads checkpoint: tensors, config (empty if there is none), and their places."""

    where: Path
    tensors: HeadTensors
    config: dict[str, Any]
    config_where: Path


def open_head_files(path: Path) -> HeadFiles:
    """Opens the heads file `path`, or the one that a directory holds, with its config.json.

    Raises OSError if there is none, ValueError naming the file if it is damaged.
    """
    weights = _find(path) if path.is_dir() else path
    if not weights.is_file():
        raise FileNotFoundError(f"{path}: heads not found")
    if weights.name.endswith(".index.json"):
        tensors = HeadTensors(shards_of_index(weights))
    elif weights.suffix in _SUFFIXES:
        tensors = HeadTensors({weights: None})
    else:
        raise failure(path, "file type", f"one of {_SUFFIXES}", weights.suffix)
    config = weights.parent / "config.json"
    return HeadFiles(weights, tensors, read_json(config) if config.is_file() else {}, config)


def find_heads(directory: Path) -> Path | None:
    """The file of a directory that is named as heads, if there is one."""
    for name in _CANDIDATES[:3]:
        if (directory / name).is_file():
            return directory / name
    return None


def _find(directory: Path) -> Path:
    for name in _CANDIDATES:
        if (directory / name).is_file():
            return directory / name
    found = sorted(p for p in directory.iterdir() if p.suffix in _SUFFIXES)
    if len(found) != 1:
        raise FileNotFoundError(
            f"{directory}: needs one of {', '.join(_CANDIDATES)}, or a single file of weights, "
            f"got {[p.name for p in found]}"
        )
    return found[0]
