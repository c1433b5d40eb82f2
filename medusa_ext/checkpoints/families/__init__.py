"""The model families: every module here that defines FAMILY describes one."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from .family import Family


def _defined_here() -> dict[str, Family]:
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    families = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return {family.name: family for family in families}


# By the `model_type` of a config.json, and by the `general.architecture` of a GGUF file.
FAMILIES: Final = _defined_here()
GGUF_FAMILIES: Final = {f.gguf_name: f for f in FAMILIES.values() if f.gguf_name is not None}
