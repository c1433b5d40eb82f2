"""The weight formats that are measured, and the bars set for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Format:
    """A weight format, the file it comes from, and its bars.

    `llama`: whether llama.cpp runs the same file at the same precision. Bars of `rows`: the cost
    of M rows over that of one; of `rows_against`: llama.cpp's cost over ours.
    """

    name: str
    storage: str
    dtype: str = "auto"
    llama: bool = True
    transformers: str = "bfloat16"
    share: float | None = None
    against: float | None = None
    rows: dict[int, float] = field(default_factory=dict)
    rows_against: float | None = None
    peak: tuple[str, float] | None = None
    rest: float | None = None


_ROWS_16_BIT: Final = {4: 1.25, 8: 1.9, 16: 3.5}
_ROWS_INT4: Final = {2: 1.15, 4: 1.45, 8: 2.2, 16: 4.0}

FORMATS: Final = (
    Format(
        "float32",
        "F32",
        transformers="float32",
        share=0.90,
        against=1.0,
        rows={8: 1.15, 12: 1.35, 16: 1.6},
        rows_against=1.8,
        peak=("float32", 0.75),
        rest=0.08,
    ),
    Format("float16", "F16", transformers="float16", share=0.85, against=1.25, rows=_ROWS_16_BIT),
    Format("bfloat16", "F32", dtype="bfloat16", llama=False, share=0.85, rows=_ROWS_16_BIT),
    Format(
        "int8",
        "Q8_0",
        share=0.75,
        against=1.6,
        rows={4: 1.25, 8: 1.75, 16: 3.0},
        rows_against=2.8,
        peak=("int8", 0.75),
        rest=0.12,
    ),
    Format(
        "int4 (Q4_0)",
        "Q4_0",
        share=0.55,
        against=1.3,
        rows=_ROWS_INT4,
        rows_against=2.2,
        peak=("int4", 0.65),
    ),
    Format("int4 (Q4_1)", "Q4_1", share=0.55, against=1.7, rows=_ROWS_INT4, rows_against=4.0),
)
