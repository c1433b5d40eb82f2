"""Bounded, typed reads of untrusted descriptions: JSON files and key/value metadata."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_log = logging.getLogger("medusa_ext")

MAX_JSON_BYTES: Final = 256 << 20
_REQUIRED: Final = object()


def failure(where: str | Path, what: str, need: str, got: object) -> ValueError:
    """A ValueError that names the file, the key, what it needs and what it got."""
    shown = repr(got)
    if len(shown) > 120:
        shown = shown[:117] + "..."
    return ValueError(f"{where}: {what}: needs {need}, got {shown}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises ValueError naming the file if it is too large, not UTF-8, not JSON, nested beyond
    Python's recursion limit, or not an object; OSError if it cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise failure(path, "file size", f"at most {MAX_JSON_BYTES} bytes", size)
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise failure(path, "top level", "a JSON object", type(value).__name__)
    return value


class Fields:
    """Typed reads from a mapping; every failure names `where`, the key, the need and the value.

    A key that is absent or null takes the default; without a default it is an error.
    """

    def __init__(self, values: Mapping[str, Any], where: str | Path, prefix: str = "") -> None:
        self._values = values
        self.where = where
        self._prefix = prefix

    def __contains__(self, key: str) -> bool:
        return self._values.get(self._prefix + key) is not None

    def has_key(self, key: str) -> bool:
        """Whether the key is there at all, be it null."""
        return self._prefix + key in self._values

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as it stands, or the default where it is absent or null."""
        value = self._values.get(self._prefix + key)
        return default if value is None else value

    def fail(self, key: str, need: str, got: object) -> ValueError:
        """The error for a bad value of `key`."""
        return failure(self.where, self._prefix + key, need, got)

    def integer(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> int:
        """An integer in [low, high]. A float with an integral value is accepted."""
        value = self._get(key, default, f"an integer in [{low}, {high}]")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"an integer in [{low}, {high}]", value)
        return value

    def number(self, key: str, low: float, high: float, default: Any = _REQUIRED) -> float:
        """A finite number in [low, high]."""
        need = f"a number in [{low:g}, {high:g}]"
        value = self._get(key, default, need)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, need, value)
        if not low <= value <= high or math.isnan(value):
            raise self.fail(key, need, value)
        return float(value)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """True or false."""
        value = self._get(key, default, "true or false")
        if not isinstance(value, bool):
            raise self.fail(key, "true or false", value)
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """A string."""
        value = self._get(key, default, "a string")
        if not isinstance(value, str):
            raise self.fail(key, "a string", value)
        return value

    def group(self, key: str) -> Fields | None:
        """A nested object's fields, or None where it is absent or null."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fail(key, "an object", value)
        return Fields(value, f"{self.where}: {self._prefix}{key}")

    def ids(self, key: str, vocab_size: int) -> tuple[int, ...]:
        """Token ids in [0, vocab_size): one, a list, or none; order kept, duplicates dropped.

        Anything else is left out with a warning: published files name tokens that their model has
        not, and work without.
        """
        value = self.raw(key)
        if value is None:
            return ()
        listed = value if isinstance(value, list) else [value]
        known = [item for item in listed[:1024] if _is_id(item, vocab_size)]
        if len(known) < len(listed):
            problem = self.fail(key, f"token ids in [0, {vocab_size})", value)
            _log.warning("%s; what is none is left out", problem)
        return tuple(dict.fromkeys(known))

    def _get(self, key: str, default: Any, need: str) -> Any:
        value = self._values.get(self._prefix + key)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise self.fail(key, need, None)
        return default


def _is_id(item: Any, vocab_size: int) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and 0 <= item < vocab_size
