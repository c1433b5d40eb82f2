"""Tensors of `.pt` and `.bin` files, loaded without ever running code from the pickle."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ..checks import failure
from .safetensors import shards_of_index
from .weight import WeightTensor, check_stored

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")

INDEX_NAME: Final = "pytorch_model.bin.index.json"
SINGLE_NAME: Final = "pytorch_model.bin"
MAX_PICKLE_BYTES: Final = 64 << 20
# Before 1.6: a magic number, the format's version, the machine's sizes, the dictionary and the keys
# of its storages, each a pickle, and the storages' numbers.
_LEGACY_START: Final = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_LEGACY_PICKLES: Final = 5
_STORAGES: Final = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float64": "F64",
}
_TENSOR_PARTS: Final = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|tensor_v3|parameter)"
    r"|torch [A-Z]\w*Storage|torch\.storage UntypedStorage|torch (b?float|u?int|bool)\w*"
)


def load_torch_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The dictionary of tensors in a torch checkpoint, `weights_only`: on the mapped file, or in
    memory where torch before 1.6 wrote it.

    Raises ValueError naming the file if it is damaged, or contains anything besides named tensors
    (code in a pickle is not run).
    """
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found")
    is_legacy = _is_legacy(path)
    (_check_legacy if is_legacy else _check_archive)(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=not is_legacy)
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


def _is_legacy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LEGACY_START)) == _LEGACY_START


def _check_legacy(path: Path) -> None:
    """The pickles before the numbers may build nothing but tensors."""
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    for _ in range(_LEGACY_PICKLES):
        _check_pickle(path, pickles)


def _check_archive(path: Path) -> None:
    """The archive's records must be stored as they are, inside the file, and its pickle
    may build nothing but tensors: `weights_only` alone lets a few bytes allocate any amount."""
    size = path.stat().st_size
    with path.open("rb") as file:
        archive = _read_zip(path, lambda: zipfile.ZipFile(file))
        for record in archive.infolist():
            _check_record(path, record, size)
            if record.filename.endswith("data.pkl"):
                _check_pickle(path, _read_zip(path, partial(archive.read, record)))


def _read_zip(path: Path, read: Callable[[], _T]) -> _T:
    """What `read` returns, any complaint of zipfile about damaged bytes as a ValueError."""
    try:
        return read()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a torch checkpoint in zip format: {error}") from error
    except (OSError, ValueError) as error:  # seeks and names that damaged offsets lead to
        raise ValueError(f"{path}: damaged zip archive: {error}") from error


def _check_record(path: Path, record: zipfile.ZipInfo, size: int) -> None:
    if record.compress_type != zipfile.ZIP_STORED:
        raise failure(path, record.filename, "an uncompressed record", "a compressed one")
    if record.file_size > size or record.header_offset > size:
        raise failure(path, record.filename, f"at most {size} bytes", record.file_size)
    if record.filename.endswith("data.pkl") and record.file_size > MAX_PICKLE_BYTES:
        need = f"a pickle of at most {MAX_PICKLE_BYTES} bytes"
        raise failure(path, record.filename, need, record.file_size)


def _check_pickle(path: Path, content: bytes | io.BytesIO) -> None:
    """Every class and function that the pickle names must be one that tensors are made of."""
    try:
        named = {
            str(argument)
            for opcode, argument, _ in pickletools.genops(content)
            if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL")
        }
    except Exception as error:  # damaged bytes lead the parser anywhere
        raise ValueError(f"{path}: data.pkl is not a valid pickle: {error}") from error
    foreign = sorted(name for name in named if not _TENSOR_PARTS.fullmatch(name))
    if foreign:
        need = "only what tensors are made of (code in a pickle is never run)"
        raise failure(path, "data.pkl", need, foreign[0].replace(" ", "."))


def _check_tensor(path: Path, name: str, tensor: torch.Tensor) -> None:
    """A tensor must be dense, on the CPU, and no larger than its storage."""
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
        tensor, path = self._tensors[name]
        return _weight(name, tensor, str(path))

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _weight(name: str, tensor: torch.Tensor, file: str) -> WeightTensor:
    """A tensor as a WeightTensor, on the same memory if contiguous."""
    import torch

    kind, shape = str(tensor.dtype), tuple(tensor.shape)
    check_stored(file, name, _STORAGES.get(kind, kind), shape)
    rows = shape[0] if len(shape) == 2 else 1
    data = tensor.detach().contiguous().reshape(rows, -1).view(torch.uint8).numpy()
    return WeightTensor(name, shape, _STORAGES[kind], data, file)
