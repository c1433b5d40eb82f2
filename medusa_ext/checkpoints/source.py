"""An opened model: configuration, tensors and where its tokenizer comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .config import ModelConfig
from .families import FAMILIES
from .files import safetensors as safetensors_file
from .files import torch as torch_file
from .files.gguf import GgufFile
from .files.weight import WeightTensor
from .plan import PlannedWeight, check_plan, fingerprint
from .read_config import config_from_directory, config_from_gguf


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
    """Opens a .gguf file, or a Hugging Face directory (safetensors, else pytorch_model.bin).

    A directory without a config.json that holds exactly one .gguf file opens that file.

    Raises:
        OSError: nothing there, or not readable.
        ValueError: damaged or unsupported; the message names file, place, need and value.
    """
    path = Path(path)
    if path.is_dir():
        ggufs = sorted(path.glob("*.gguf"))
        if (path / "config.json").is_file() or len(ggufs) != 1:
            return _open_directory(path)
        path = ggufs[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found")
    if path.suffix != ".gguf":
        raise ValueError(f"{path}: a model needs to be a directory or a .gguf file, got neither")
    file = GgufFile(path)
    return ModelSource(path, config_from_gguf(file), file, file)


def _open_directory(directory: Path) -> ModelSource:
    config = config_from_directory(directory)
    tensors: Mapping[str, WeightTensor]
    single = (directory / torch_file.SINGLE_NAME, directory / torch_file.INDEX_NAME)
    has_safetensors = any(directory.glob("*.safetensors")) or any(
        directory.glob(safetensors_file.INDEX_NAME)
    )
    if has_safetensors or not any(p.is_file() for p in single):
        tensors = safetensors_file.SafetensorsCheckpoint.from_directory(directory)
    else:
        tensors = torch_file.TorchCheckpoint.from_directory(directory)
    return ModelSource(directory, config, tensors)
