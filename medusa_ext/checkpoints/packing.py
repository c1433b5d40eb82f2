"""From opened checkpoints to the native module's packed weights, a few megabytes at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from . import ModelSource, WeightTensor, iter_weights
from .types import FORMATS

if TYPE_CHECKING:
    import torch

    from .. import _C
    from .heads.checkpoint import HeadsCheckpoint

# A file's storage type -> the packed format that keeps its precision.
_KEPT: Final = {
    "F32": "float32",
    "F64": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "Q8_0": "int8",
    "Q4_0": "int4",
    "Q4_1": "int4",
}
_VOCABULARY_MATRICES: Final = ("embed", "lm_head")

Adapters = Mapping[str, tuple["torch.Tensor", "torch.Tensor"]]


def choose_formats(source: ModelSource, dtype: str) -> dict[str, str]:
    """The packed format of every matrix, by canonical name.

    "auto" keeps each tensor's own precision (types that are dequantised to 16 bits: int8); gate and
    up are one product, so where a file stores them differently both take the finer format.
    Otherwise all matrices take `dtype`, but with "int4" the embedding and lm_head take int8:
    they are read by rows or decide the token, and 4 bits there cost much for little.
    """
    formats = {}
    for item in source.plan:
        if len(item.shape) != 2:
            continue
        if dtype == "auto":
            storage = source.tensors[item.file_name].storage
            formats[item.canonical] = _KEPT.get(storage, "int8")
        elif dtype == "int4" and item.canonical in _VOCABULARY_MATRICES:
            formats[item.canonical] = "int8"
        else:
            formats[item.canonical] = dtype
    for gate in [name for name in formats if name.endswith(".gate")]:
        up = gate.removesuffix("gate") + "up"
        formats[gate] = formats[up] = _keeping_both(formats[gate], formats[up])
    return formats


def _keeping_both(one: str, other: str) -> str:
    """The format for two matrices of one product: the finer of theirs, or one finer than both."""
    if {one, other} == {"bfloat16", "float16"}:
        return "float32"
    return min(one, other, key=FORMATS.index)


def build_model(
    source: ModelSource,
    formats: Mapping[str, str],
    device: str,
    *,
    adapters: Adapters | None = None,
    isa: str = "",
    deterministic: bool = False,
    progress: bool = False,
) -> _C.Model:
    """Packs a model's weights; `adapters` are added to the base's matrices on the way.

    Raises ValueError naming the adapter if one does not fit the base.
    """
    from .. import _C

    adapters = dict(adapters or {})
    for name in adapters:
        if name not in formats:
            raise ValueError(f"adapter of {name!r}: needs to name a matrix of the base model")
    builder = _C.ModelBuilder(source.config, formats, isa, device, deterministic)
    for name, weight in iter_weights(source, progress=progress):
        with _naming(source.path):
            if name not in formats:
                builder.set_vector(name, weight.to_float().reshape(-1))
            elif name in adapters:
                for start, rows in _adapted_rows(name, weight, adapters[name]):
                    builder.set_rows(name, start, "F32", rows)
            else:
                for start, stop in weight.chunks():
                    rows = np.ascontiguousarray(weight.rows(start, stop))
                    builder.set_rows(name, start, weight.dtype, rows)
    return builder.finish()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names the file in what the native module says of a tensor: numbers that are not finite."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _adapted_rows(
    name: str, weight: WeightTensor, adapter: tuple[torch.Tensor, torch.Tensor]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Row chunks of W + up @ down, in float32."""
    down, up = (side.float().numpy() for side in adapter)
    if (up.shape[0], down.shape[1]) != weight.shape:
        got = [up.shape[0], down.shape[1]]
        raise ValueError(f"adapter of {name!r}: needs shape {list(weight.shape)}, got {got}")
    for start, stop in weight.chunks():
        yield start, weight.to_float(start, stop) + up[start:stop] @ down


def head_formats(dtype: str, supported: Sequence[str]) -> tuple[str, str]:
    """Formats of heads' blocks and lm_heads, for a model of `dtype` on a device that takes
    `supported`.

    At most 8 bits where the device has them, whatever the model's format: heads only draft, so
    that no lossless text depends on their precision, and a proposal takes the time of reading them.
    The default heads take a quarter of it in int8, and as many of their drafts are accepted.
    """
    if dtype == "int4":
        return "int4", "int8"
    return ("int8", "int8") if "int8" in supported else (dtype, dtype)


def build_heads(
    model: _C.Model, checkpoint: HeadsCheckpoint, source: ModelSource, dtype: str
) -> _C.Heads:
    """Packs heads for `model`, whose weights have `dtype`, in the formats of `head_formats`.

    Heads that score a draft vocabulary without lm heads of their own get the base's rows for it.
    """
    from .. import _C

    block_format, lm_head_format = head_formats(dtype, model.supported_formats)
    base_rows = _draft_rows(checkpoint, source)
    builder = _C.HeadsBuilder(
        model,
        checkpoint.num_heads,
        checkpoint.num_layers,
        checkpoint.kind,
        _lm_head_kind(checkpoint, base_rows),
        block_format,
        lm_head_format,
        None if checkpoint.token_map is None else checkpoint.token_map.numpy(),
    )
    for name, tensor in _head_tensors(checkpoint):
        with _naming(checkpoint.path):
            if tensor.ndim == 1:
                builder.set_vector(name, tensor)
            else:
                builder.set_rows(name, 0, "F32", tensor)
    if base_rows is not None:
        for start, stop in base_rows.chunks():
            rows = np.ascontiguousarray(base_rows.rows(start, stop))
            builder.set_rows("lm_head", start, base_rows.dtype, rows)
    return builder.finish()


def _lm_head_kind(checkpoint: HeadsCheckpoint, base_rows: WeightTensor | None) -> str:
    if base_rows is not None:
        return "shared"
    if checkpoint.lm_heads is None:
        return "base"
    return "shared" if len(checkpoint.lm_heads) == 1 < checkpoint.num_heads else "own"


def _head_tensors(
    checkpoint: HeadsCheckpoint,
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Float32 tensors under the native names: a missing bias as zeros, the weights of the root
    token's embedding beside those of the hidden state, one lm_head of one head as its own."""
    roots = checkpoint.root_weights
    for name, tensor in checkpoint.tensors():
        values = np.ascontiguousarray(tensor.float().numpy())
        head, _, field = name.partition(".")
        if field == "root":
            continue
        if field == "0.weight" and roots is not None:
            values = np.concatenate([values, roots[int(head)].float().numpy()], axis=1)
        if name == "lm_head" and checkpoint.num_heads == 1:
            name = "0.lm_head"
        yield name, values
    for k, blocks in enumerate(checkpoint.blocks):
        for layer, block in enumerate(blocks):
            if block.bias is None:
                yield f"{k}.{layer}.bias", np.zeros(checkpoint.hidden_size, np.float32)


def _draft_rows(checkpoint: HeadsCheckpoint, source: ModelSource) -> WeightTensor | None:
    """The base's lm_head rows of a draft vocabulary, where the heads bring none themselves."""
    if checkpoint.lm_heads is not None or checkpoint.token_map is None:
        return None
    wanted = "embed" if source.config.tied_embeddings else "lm_head"
    weight = next(item for item in source.plan if item.canonical == wanted).of(source.tensors)
    order = checkpoint.token_map.numpy().astype(np.int64)
    return replace(weight, shape=(len(order), weight.shape[1]), row_order=order)
