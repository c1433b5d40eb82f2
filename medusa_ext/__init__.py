"""Medusa-head tree decoding for causal language models at the lowest overhead the hardware allows.

The native module `medusa_ext._C` is found, or compiled, when it is first imported; importing this
package alone is cheap. The public names below are loaded from their modules at first use.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from ._build import ExtensionFinder, Settings

__version__ = "0.1.0"

_PUBLIC = {
    "Drafter": "drafting.drafter",
    "Engine": "engine.engine",
    "Model": "engine.model",
    "Request": "engine.request",
    "Result": "engine.results",
    "Session": "engine.session",
    "Stats": "engine.results",
    "Tree": "drafting.trees",
    "generate": "api",
    "load": "api",
    "stream": "api",
}
__all__ = [
    "Drafter",
    "Engine",
    "Model",
    "Request",
    "Result",
    "Session",
    "Stats",
    "Tree",
    "generate",
    "load",
    "stream",
]

# The environment as it was when the package was imported.
SETTINGS = Settings.from_environment(os.environ)
sys.meta_path.insert(0, ExtensionFinder(Path(__file__).parent, SETTINGS))


def __getattr__(name: str) -> Any:
    """Loads a public name; raises AttributeError for any other."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
