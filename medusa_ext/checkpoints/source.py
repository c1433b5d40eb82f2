"""An opened model: configuration, tensors and where its tokenizer comes from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from .checks import failure
from .config import ModelConfig
from .families import FAMILIES
from .files import safetensors as safetensors_file
from .files import torch as torch_file
from .files.gguf import GgufFile, is_gguf
from .files.weight import WeightTensor
from .plan import PlannedWeight, check_plan, fingerprint
from .read_config import config_from_directory, config_from_gguf

_log = logging.getLogger("medusa_ext")


@dataclass(frozen=True)
class ModelSource:
    """A model found on disk, its configuration checked; no weight has been read yet.

    `tensors` maps the file's own names to weights. `gguf` is the opened GGUF file, or None for a
    Hugging Face directory.
    """

    path: Path
    config: ModelConfig
    tensors: Mapping[str, WeightTensor]
    gguf: GgufFile | None = None

    @cached_property
    def plan(self) -> tuple[PlannedWeight, ...]:
        """Every weight the model needs, after making sure that each is there in its shape.

        Raises ValueError naming the file and every missing or mis-shaped tensor.
        """
        plan = FAMILIES[self.config.family].plan(self.config, in_gguf=self.gguf is not None)
        check_plan(plan, self.tensors, self.path)
        return plan

    @cached_property
    def fingerprint(self) -> str:
        """Which base this is, whatever format its weights are stored in; reads all norms.

        Raises ValueError as `plan` does.
        """
        return fingerprint(self.config, self.plan, self.tensors)


def open_source(path: str | Path) -> ModelSource:
    """Opens a GGUF file, known by its first bytes, or a Hugging Face directory (safetensors, else
    pytorch_model.bin).

    A directory that holds no such model but exactly one .gguf file opens that file.

    Raises:
        OSError: nothing there, or not readable.
        ValueError: damaged or unsupported; the message names file, place, need and value.
    """
    path = Path(path)
    if path.is_dir():
        ggufs = [] if _is_hugging_face(path) else sorted(filter(_is_called_gguf, path.iterdir()))
        if not ggufs:
            return _open_directory(path)
        if len(ggufs) > 1:
            need = "one model, or the path of one of its GGUF files"
            raise failure(path, "folder", need, [one.name for one in ggufs])
        path = ggufs[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found")
    if not _is_called_gguf(path) and not is_gguf(path):
        raise ValueError(f"{path}: a model needs to be a directory or a .gguf file, got neither")
    file = GgufFile(path)
    return ModelSource(path, config_from_gguf(file), file, file)


def _is_called_gguf(path: Path) -> bool:
    return path.suffix.lower() == ".gguf" and path.is_file()


def _is_hugging_face(directory: Path) -> bool:
    """Whether a directory has weights of its own beside its config.json."""
    has_weights = _has_safetensors(directory) or _has_torch_files(directory)
    return has_weights and (directory / "config.json").is_file()


def _has_safetensors(directory: Path) -> bool:
    index = directory / safetensors_file.INDEX_NAME
    return index.is_file() or any(directory.glob("*.safetensors"))


def _has_torch_files(directory: Path) -> bool:
    names = (torch_file.SINGLE_NAME, torch_file.INDEX_NAME)
    return any((directory / name).is_file() for name in names)


def _open_directory(directory: Path) -> ModelSource:
    config = config_from_directory(directory)
    tensors: Mapping[str, WeightTensor]
    if _has_safetensors(directory) or not _has_torch_files(directory):
        tensors = safetensors_file.SafetensorsCheckpoint.from_directory(directory)
    else:
        tensors = torch_file.TorchCheckpoint.from_directory(directory)
    names = FAMILIES[config.family].model_names
    embed, lm_head = (names[key][0] for key in ("embed", "lm_head"))
    tensors = _as_named(tensors, embed)
    if config.tied_embeddings and _has_own(tensors, lm_head, embed):
        _log.warning(
            "%s: tie_word_embeddings is true, but %s differs from %s; it is used",
            directory,
            lm_head,
            embed,
        )
        config = replace(config, tied_embeddings=False)
    return ModelSource(directory, config, tensors)


def _as_named(tensors: Mapping[str, WeightTensor], embed: str) -> Mapping[str, WeightTensor]:
    """The tensors under the names that a causal language model has, one of which is `embed`: files
    of its inner model lack the first part, files of a model around it have one before that."""
    if embed in tensors:
        return tensors
    inner = embed.partition(".")[0] + "."
    if embed.removeprefix(inner) in tensors:
        return {
            name if name.startswith("lm_head.") else inner + name: tensors[name] for name in tensors
        }
    around = [name.removesuffix(embed) for name in tensors if name.endswith(f".{embed}")]
    if len(around) != 1:
        return tensors
    return {name.removeprefix(around[0]): tensors[name] for name in tensors}


def _has_own(tensors: Mapping[str, WeightTensor], lm_head: str, embed: str) -> bool:
    """Whether there is an lm_head that fits the embeddings and differs from them."""
    if lm_head not in tensors or embed not in tensors:
        return False
    own, tied = tensors[lm_head], tensors[embed]
    return own.shape == tied.shape and any(
        not np.array_equal(own.to_float(*rows), tied.to_float(*rows)) for rows in own.chunks()
    )
