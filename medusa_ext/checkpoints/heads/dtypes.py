"""Storage types of head tensors: floats as they are, FP8 and int8 multiplied by their scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checks import failure
from .files import HeadFiles

if TYPE_CHECKING:
    import torch


def read_matrix(files: HeadFiles, name: str) -> torch.Tensor:
    """A weight or bias in a floating type that the packer takes.

    FP8 (E4M3, ModelOpt: one `weight_scale` per tensor) becomes bfloat16; int8 (our own layout: a
    float32 `weight_scale` per row) becomes float32; float64 becomes float32.

    Raises ValueError naming the file and tensor for other types and missing or bad scales.
    """
    import torch

    tensor = files.tensors[name]
    if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16):
        return tensor
    if tensor.dtype == torch.float64:
        return tensor.float()
    if tensor.dtype not in (torch.float8_e4m3fn, torch.int8):
        need = "float32, float16, bfloat16, FP8 E4M3 or int8"
        raise failure(files.where, f"type of {name!r}", need, str(tensor.dtype))
    scale_name = name + "_scale"
    if scale_name not in files.tensors:
        raise failure(files.where, f"scale of {name!r}", f"a tensor {scale_name!r}", None)
    scale = files.tensors[scale_name].float()
    rows = tensor.shape[0] if tensor.dim() else 1
    whole = tensor.dtype == torch.float8_e4m3fn
    if scale.numel() != (1 if whole else rows) or not bool(torch.isfinite(scale).all()):
        need = f"{1 if whole else rows} finite numbers"
        raise failure(files.where, scale_name, need, list(scale.shape))
    if whole:
        # By rows, so that no float32 copy of an lm_head exists.
        result = torch.empty(tensor.shape, dtype=torch.bfloat16)
        for start in range(0, rows, 1024):
            result[start : start + 1024] = tensor[start : start + 1024].float() * scale.reshape(())
        return result
    return tensor.float() * scale.reshape(-1, *[1] * (tensor.dim() - 1))


def quantize_rows(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix [R, C] as int8 and float32 scales [R]: symmetric, per row, rounded to nearest."""
    import torch

    values = matrix.float()
    scale = values.abs().amax(dim=1) / 127.0
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (values / divisor[:, None]).round().clamp(-127, 127).to(torch.int8), scale
