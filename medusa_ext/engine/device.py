"""Which device a model is made on, and the types of its weights and cache there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .._build import Settings, look

# The CUDA kernels use tensor cores for these head sizes; a float32 cache takes any other.
CUDA_HEAD_SIZES: Final = (64, 80, 96, 128, 256)
MINIMUM_CAPABILITY: Final = (8, 0)


@dataclass(frozen=True)
class Placement:
    """A device, the format of the matrices there ("auto": as the file has them) and the cache's."""

    device: str
    dtype: str
    kv_dtype: str


def place(device: str, dtype: str, kv_dtype: str, head_size: int) -> Placement:
    """Settles "auto": CUDA where this build and this machine can, bfloat16 weights there.

    Raises ValueError for a device that this build has no backend for, and for types that CUDA's
    kernels do not take. A missing device shows when the model is built: RuntimeError.
    """
    from .. import _C

    has_cuda = "cuda" in _C.devices()
    if device == "auto":
        device = "cuda" if has_cuda and _has_usable_device() else "cpu"
    if device == "cpu":
        return Placement("cpu", dtype, "float32" if kv_dtype == "auto" else kv_dtype)
    if not has_cuda:
        raise ValueError(
            "device: 'cuda' needs the CUDA backend, which this build of medusa_ext lacks: "
            f"{_why_cuda_is_missing()}"
        )
    return Placement("cuda", *cuda_types(dtype, kv_dtype, head_size, _C.weight_formats("cuda")))


def cuda_types(
    dtype: str, kv_dtype: str, head_size: int, formats: Sequence[str]
) -> tuple[str, str]:
    """The types of weights and cache on CUDA, whose kernels take weights in `formats`.

    Raises ValueError for types that the kernels do not take.
    """
    dtype = "bfloat16" if dtype == "auto" else dtype
    if dtype not in formats:
        need = f"'auto' (bfloat16) or one of {', '.join(formats)} on 'cuda'"
        raise ValueError(f"dtype: needs {need}, where there is no {dtype}; got {dtype!r}")
    fits_tensor_cores = head_size in CUDA_HEAD_SIZES
    if kv_dtype == "auto":
        kv_dtype = dtype if fits_tensor_cores else "float32"
    if kv_dtype not in (dtype, "float32"):
        need = f"'auto', 'float32' or the weights' {dtype} on 'cuda'"
        raise ValueError(f"kv_dtype: needs {need}, got {kv_dtype!r}")
    if kv_dtype != "float32" and not fits_tensor_cores:
        sizes = ", ".join(map(str, CUDA_HEAD_SIZES))
        raise ValueError(
            f"kv_dtype: needs 'float32' on 'cuda' for head size {head_size} (16-bit caches: "
            f"{sizes}), got {kv_dtype!r}"
        )
    return dtype, kv_dtype


def _has_usable_device() -> bool:
    import torch

    if not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(0) >= MINIMUM_CAPABILITY


def _why_cuda_is_missing() -> str:
    found = look(Path(__file__).parents[1], Settings.from_environment(os.environ))
    return str(found.binary.info["cuda_reason"] if found.binary else found.plan.cuda_reason)
