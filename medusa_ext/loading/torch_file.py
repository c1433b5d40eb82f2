"""Tensors of `.pt` and `.bin` files, loaded without ever running code from the pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .checks import failure
from .safetensors_file import shards_of_index, tensor_from_torch
from .weight_tensor import WeightTensor

if TYPE_CHECKING:
    import torch

INDEX_NAME: Final = "pytorch_model.bin.index.json"
SINGLE_NAME: Final = "pytorch_model.bin"
MAX_PICKLE_BYTES: Final = 64 << 20


def load_torch_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The dictionary of tensors in a torch checkpoint, on the mapped file, `weights_only`.

    Raises ValueError naming the file if it is damaged, contains anything besides named tensors
    (code in a pickle is not run), or is not in the zip format of torch 1.6 and later.
    """
    import torch

    _check_archive(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # the unpickler raises whatever the damaged bytes lead it to
        reason = str(error).strip().split("\n")[0][:300]
        raise ValueError(
            f"{path}: needs a checkpoint of plain tensors (pickled code is never run), "
            f"got {type(error).__name__}: {reason}"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise failure(path, "content", "a dictionary of tensors", type(loaded).__name__)
    for name, value in loaded.items():
        if not isinstance(name, str) or type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise failure(path, f"entry {name!r}", "a plain tensor", type(value).__name__)
        _check_tensor(path, name, value)
    return {name: value.detach() for name, value in loaded.items()}


def _check_archive(path: Path) -> None:
    """The archive's records must be stored as they are and lie within the file, so that reading
    them allocates no more than the file's size."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found")
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise ValueError(f"{path}: not a torch checkpoint in zip format: {error}") from error
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED:
            raise failure(path, record.filename, "an uncompressed record", "a compressed one")
        if record.file_size > size or record.header_offset > size:
            raise failure(path, record.filename, f"at most {size} bytes", record.file_size)
        if record.filename.endswith("data.pkl") and record.file_size > MAX_PICKLE_BYTES:
            need = f"a pickle of at most {MAX_PICKLE_BYTES} bytes"
            raise failure(path, record.filename, need, record.file_size)


def _check_tensor(path: Path, name: str, tensor: torch.Tensor) -> None:
    """A tensor must be dense, on the CPU, and no larger than the bytes behind it."""
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        got = f"{tensor.layout} on {tensor.device}"
        raise failure(path, f"tensor {name!r}", "a dense CPU tensor", got)
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored:
        need = f"{tensor.numel() * tensor.element_size()} bytes behind shape {tuple(tensor.shape)}"
        raise failure(path, f"tensor {name!r}", need, stored)


class TorchCheckpoint(Mapping[str, WeightTensor]):
    """The tensors of `pytorch_model*.bin` files by name."""

    def __init__(self, files: dict[Path, tuple[str, ...] | None]) -> None:
        self._tensors: dict[str, tuple[torch.Tensor, Path]] = {}
        for path, wanted in files.items():
            loaded = load_torch_tensors(path)
            for name in loaded if wanted is None else wanted:
                if name not in loaded:
                    raise failure(path, f"tensor {name!r}", "to be there (the index says so)", None)
                self._tensors[name] = (loaded[name], path)

    @classmethod
    def from_directory(cls, directory: Path) -> TorchCheckpoint:
        """The checkpoint of a model directory: its index's shards, or its pytorch_model.bin."""
        index = directory / INDEX_NAME
        return cls(shards_of_index(index) if index.is_file() else {directory / SINGLE_NAME: None})

    def __getitem__(self, name: str) -> WeightTensor:
        import torch

        names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
        names[torch.float64] = "F64"
        tensor, path = self._tensors[name]
        if tensor.dtype not in names:
            raise failure(path, f"type of {name!r}", "floating point", str(tensor.dtype))
        if not 1 <= tensor.dim() <= 2 or tensor.numel() == 0:
            need = "one or two non-empty dimensions"
            raise failure(path, f"shape of {name!r}", need, tuple(tensor.shape))
        return tensor_from_torch(name, tensor.contiguous(), names[tensor.dtype], str(path))

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
