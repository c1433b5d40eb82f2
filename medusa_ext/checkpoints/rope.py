"""Rotary tables: what turns q and k by position, read from JSON or GGUF into one form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .checks import Fields, failure
from .files.gguf import GgufFile
from .limits import MAX_HEAD_SIZE, MAX_POSITIONS

_GGUF_FACTORS: Final = "rope_freqs.weight"


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies are scaled.

    kind "none"; "still": all are zero, and nothing is turned; "linear": divided by `factor`;
    "llama3": long wavelengths divided by `factor`, short ones kept, interpolated between (the bands
    of `apply_scaling` in Meta's code); "factors": divided one by one by `factors` [D/2], as a GGUF
    file's `rope_freqs` tensor gives them.
    """

    kind: str = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Rope:
    """One rotary table: the base of its frequencies and how they are scaled."""

    theta: float = 10000.0
    scaling: RopeScaling = RopeScaling()

    def inverse_frequencies(self, head_size: int) -> npt.NDArray[np.float64]:
        """The angle per position for each pair of dimensions [D/2], scaling applied."""
        exponents = np.arange(head_size // 2, dtype=np.float64) * 2.0 / head_size
        plain = self.theta**-exponents
        scaling = self.scaling
        if scaling.kind == "still":
            return np.zeros_like(plain)
        if scaling.kind == "linear":
            return plain / scaling.factor
        if scaling.kind == "factors":
            return plain / np.asarray(scaling.factors, dtype=np.float64)
        if scaling.kind == "llama3":
            return _banded_frequencies(plain, scaling)
        return plain


NO_ROPE: Final = Rope(scaling=RopeScaling(kind="still"))  # of layers without positions


def _banded_frequencies(
    plain: npt.NDArray[np.float64], scaling: RopeScaling
) -> npt.NDArray[np.float64]:
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_max_position * plain / (2.0 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 - smooth) * plain / scaling.factor + smooth * plain


def rope_from_json(fields: Fields) -> Rope:
    """The table of a `config.json`: `rope_parameters` (transformers 5), or `rope_theta` with
    `rope_scaling` (before)."""
    parameters = fields.group("rope_parameters")
    if parameters is None or parameters.raw("rope_theta") is None:
        theta = fields.number("rope_theta", 1.0, 1e15, 10000.0)
    else:
        theta = parameters.number("rope_theta", 1.0, 1e15)
    scaling = parameters if parameters is not None else fields.group("rope_scaling")
    return Rope(theta) if scaling is None else Rope(theta, _scaling_from_json(scaling))


def _scaling_from_json(scaling: Fields) -> RopeScaling:
    key = "rope_type" if "rope_type" in scaling else "type"
    kind = scaling.text(key, "default")
    if scaling.number("partial_rotary_factor", 0.0, 1e6, 1.0) != 1.0:
        raise scaling.fail("partial_rotary_factor", "1.0", scaling.raw("partial_rotary_factor"))
    if kind == "default":
        if "mrope_section" in scaling:
            raise scaling.fail("mrope_section", "no multimodal rope", scaling.raw("mrope_section"))
        return RopeScaling()
    if kind == "linear":
        return RopeScaling(kind="linear", factor=scaling.number("factor", 1e-3, 1e6))
    if kind != "llama3":
        raise scaling.fail(key, "one of 'default', 'linear', 'llama3'", kind)
    low = scaling.number("low_freq_factor", 1e-6, 1e6)
    high = scaling.number("high_freq_factor", 1e-6, 1e6)
    if high <= low:
        raise scaling.fail("high_freq_factor", f"more than low_freq_factor {low:g}", high)
    return RopeScaling(
        kind="llama3",
        factor=scaling.number("factor", 1e-3, 1e6),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position=scaling.integer("original_max_position_embeddings", 1, MAX_POSITIONS),
    )


def rope_from_gguf(fields: Fields, file: GgufFile) -> Rope:
    """The table of a GGUF file: a base, with a `rope_freqs` tensor or a linear factor."""
    theta = fields.number("rope.freq_base", 1.0, 1e15, 10000.0)
    kind = fields.text("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise fields.fail("rope.scaling.type", "'none' or 'linear'", kind)
    if _GGUF_FACTORS in file:
        return Rope(theta, RopeScaling(kind="factors", factors=_gguf_factors(file)))
    if kind == "linear":
        factor = fields.number("rope.scaling.factor", 1e-3, 1e6)
        return Rope(theta, RopeScaling(kind="linear", factor=factor))
    scale = fields.number("rope.scale_linear", 0.0, 1e6, 1.0)
    if scale in (0.0, 1.0):
        return Rope(theta)
    return Rope(theta, RopeScaling(kind="linear", factor=scale))


def _gguf_factors(file: GgufFile) -> tuple[float, ...]:
    tensor = file[_GGUF_FACTORS]
    if tensor.storage != "F32" or tensor.num_columns > MAX_HEAD_SIZE or tensor.num_rows != 1:
        need = f"a vector of at most {MAX_HEAD_SIZE} F32 numbers"
        raise failure(file.path, _GGUF_FACTORS, need, (tensor.storage, tensor.shape))
    values = tensor.to_float()[0]
    if not bool(np.isfinite(values).all() and (values > 0).all()):
        raise failure(file.path, _GGUF_FACTORS, "positive finite numbers", values.tolist())
    return tuple(float(v) for v in values)
