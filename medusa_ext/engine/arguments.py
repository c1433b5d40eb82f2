"""Checks of what users pass: the error names the argument, what it needs and what it got."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def integer(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int in [low, high]."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: needs an integer, got {value!r}")
    number = int(value.__index__())
    if not low <= number <= high:
        raise ValueError(f"{name}: needs an integer in [{low}, {high}], got {number}")
    return number


def number(name: str, value: Any, fits: Callable[[float], bool], need: str) -> float:
    """`value` as a float for which `fits` holds; `need` says so in words."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: needs {need}, got {value!r}")
    found = float(value)
    if math.isnan(found) or not fits(found):
        raise ValueError(f"{name}: needs {need}, got {value!r}")
    return found


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raises ValueError if the value is none of the words allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: needs one of {', '.join(allowed)}, got {value!r}")


def check_bool(name: str, value: Any) -> None:
    """Raises TypeError if the value is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: needs a bool, got {value!r}")


def check_place(name: str, value: Any) -> None:
    """Raises TypeError or ValueError if the value is no name or path."""
    if not isinstance(value, str | Path):
        raise TypeError(f"{name}: needs a name or a path, got {type(value).__name__}")
    if not str(value).strip():
        raise ValueError(f"{name}: needs a name or a path, got an empty string")
