"""Limits of a chat template, which is a program of whoever made the model.

transformers runs it in jinja's sandbox, where it reaches nothing but what it is given. That stops
neither an endless loop nor a text that doubles with every turn.
"""

from __future__ import annotations

import functools
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

SECONDS: Final = 5.0
GROWTH_BYTES: Final = 512 << 20
_LARGEST_FACTOR: Final = 1000
_STATM: Final = Path("/proc/self/statm")
# Each makes a text of any size in one step, between two looks at the limits.
_PADDING: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "lipsum"})


@functools.lru_cache(maxsize=8)
def check_template(source: str) -> None:
    """ValueError for a template with an operation that no look between two steps could stop: a
    power, a product without a small number in it, or padding to a width."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        tokens = [
            (kind, value) for _, kind, value in Environment().lex(source) if kind != "whitespace"
        ]
    except TemplateSyntaxError as error:
        raise ValueError(f"not a jinja template: {error}") from error
    for i, (kind, value) in enumerate(tokens):
        if kind == "name" and value in _PADDING and tokens[i - 1][1] in (".", "|"):
            raise ValueError(f"needs to do without {value}")
        if kind == "operator" and (value == "**" or (value == "*" and not _is_small(tokens, i))):
            raise ValueError(f"needs to do without {value}, but for small numbers")


def _is_small(tokens: list[tuple[str, str]], i: int) -> bool:
    """Whether a number beside the operator at `i` is one that may multiply anything."""
    beside = [tokens[j] for j in (i - 1, i + 1) if 0 <= j < len(tokens)]
    return any(kind == "integer" and int(text) <= _LARGEST_FACTOR for kind, text in beside)


def within_limits(render: Callable[[], str]) -> str:
    """What `render` returns. Between any two of its lines, ValueError once it has taken SECONDS or
    the process has grown by GROWTH_BYTES."""
    start = time.monotonic()
    resident = _resident_bytes()

    def look(_frame: FrameType, _event: str, _argument: Any) -> Any:
        if time.monotonic() - start > SECONDS:
            raise ValueError(f"needs to end within {SECONDS:.0f} s")
        if _resident_bytes() - resident > GROWTH_BYTES:
            raise ValueError(f"needs to do with {GROWTH_BYTES >> 20} MiB")
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        return render()
    finally:
        sys.settrace(before)


def _resident_bytes() -> int:
    """What the process holds now; where the system does not say, the most that it has held."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
