"""Which weights a model needs: canonical names, names in its files, shapes; and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from .config import LayerSpec, ModelConfig
from .files.weight import WeightTensor
from .transforms import Transform

_MAX_PROBLEMS: Final = 20


@dataclass(frozen=True)
class PlannedWeight:
    """A weight the model needs: canonical name, name in the file, shape there, and what turns the
    stored weight into the canonical one (None: it is that already)."""

    canonical: str
    file_name: str
    shape: tuple[int, ...]
    transform: Transform | None = None

    def of(self, tensors: Mapping[str, WeightTensor]) -> WeightTensor:
        """The canonical weight."""
        stored = tensors[self.file_name]
        return stored if self.transform is None else self.transform(stored)


def layer_shapes(config: ModelConfig, layer: LayerSpec) -> dict[str, tuple[int, ...]]:
    """The weights of one layer by canonical name, in the order of the forward pass."""
    hidden, size, ffn = config.hidden_size, config.head_size, config.ffn_size
    query, kv = config.num_query_heads * size, config.num_kv_heads * size
    shapes: dict[str, tuple[int, ...]] = {"attn_norm": (hidden,)} if layer.pre_norm else {}
    shapes |= {"q": (query, hidden), "k": (kv, hidden), "v": (kv, hidden)}
    if layer.qkv_bias:
        shapes |= {"q_bias": (query,), "k_bias": (kv,), "v_bias": (kv,)}
    if layer.qk_norm:
        shapes |= {"q_norm": (size,), "k_norm": (size,)}
    shapes["o"] = (hidden, query)
    if layer.post_norm:
        shapes["attn_post_norm"] = (hidden,)
    if layer.pre_norm:
        shapes["ffn_norm"] = (hidden,)
    shapes |= {"gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
    if layer.post_norm:
        shapes["ffn_post_norm"] = (hidden,)
    return shapes


def check_plan(
    plan: Iterable[PlannedWeight], tensors: Mapping[str, WeightTensor], where: Path
) -> None:
    """Makes sure that every weight is there in its shape.

    Raises ValueError naming the file and every missing or mis-shaped tensor.
    """
    problems = []
    for item in plan:
        if item.file_name not in tensors:
            problems.append(f"{item.file_name} is missing (needs {list(item.shape)})")
            continue
        shape = tensors[item.file_name].shape
        if shape != item.shape:
            problems.append(f"{item.file_name} needs shape {list(item.shape)}, got {list(shape)}")
    if problems:
        shown = "; ".join(problems[:_MAX_PROBLEMS])
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" * (len(problems) > _MAX_PROBLEMS)
        raise ValueError(f"{where}: {len(problems)} weights do not fit: {shown}{more}")


def fingerprint(
    config: ModelConfig, plan: Iterable[PlannedWeight], tensors: Mapping[str, WeightTensor]
) -> str:
    """A short hash of sizes and norm weights, the same for any storage format of the weights.

    Norms stay 16-bit or wider in every format, so a quantised copy of a model keeps its
    fingerprint, and a fine-tuned one (norms trained) does not. Rounded to bfloat16 for hashing.
    """
    sizes = (config.num_layers, config.hidden_size, config.vocab_size, config.ffn_size)
    digest = hashlib.sha256(repr(sizes).encode())
    for item in plan:
        if item.canonical.endswith("_norm"):
            bits = tensors[item.file_name].to_float().view(np.uint32).astype(np.uint64)
            rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
            digest.update(rounded.astype("<u2").tobytes())
    return digest.hexdigest()[:32]
