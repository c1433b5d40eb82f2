"""A model's description, read by its family and checked before any weight is read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .checks import Fields, read_json
from .config import ModelConfig, check_geometry
from .families import FAMILIES, GGUF_FAMILIES
from .files.gguf import GgufFile

_log = logging.getLogger("medusa_ext")


def config_from_directory(directory: Path) -> ModelConfig:
    """The configuration of a Hugging Face model directory (`config.json`, and the end tokens of
    `generation_config.json` where there is one).

    Raises ValueError naming file, key, need and value for anything malformed or unsupported.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; a model directory needs a config.json")
    generation_path = directory / "generation_config.json"
    generation = _generation_config(generation_path) if generation_path.is_file() else {}
    return config_from_json(read_json(path), path, generation, generation_path)


def _generation_config(path: Path) -> dict[str, Any]:
    """Empty, with a warning, where the file is damaged: it only adds to what the config says."""
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        _log.warning("%s; the model is used without it", error)
        return {}


def config_from_json(
    values: dict[str, Any],
    where: str | Path,
    generation: dict[str, Any] | None = None,
    generation_where: str | Path = "generation_config.json",
) -> ModelConfig:
    """The configuration in the object of a Hugging Face `config.json`; see above for errors."""
    fields = Fields(values, where)
    name = fields.text("model_type")
    if name not in FAMILIES:
        raise fields.fail("model_type", f"a supported architecture {tuple(FAMILIES)}", name)
    config = FAMILIES[name].from_json(fields, Fields(generation or {}, generation_where))
    return check_geometry(config, where)


def config_from_gguf(file: GgufFile) -> ModelConfig:
    """The configuration in a GGUF file's metadata, before any weight is read.

    Raises ValueError naming file, key, need and value.
    """
    general = Fields(file.metadata, file.path)
    name = general.text("general.architecture")
    if name not in GGUF_FAMILIES:
        raise general.fail("general.architecture", f"one of {tuple(GGUF_FAMILIES)}", name)
    fields = Fields(file.metadata, file.path, prefix=f"{name}.")
    return check_geometry(GGUF_FAMILIES[name].from_gguf(fields, file), file.path)
