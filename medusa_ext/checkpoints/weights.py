"""A model's weights under canonical names, checked as a whole before the first is handed out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .config import ModelConfig
from .files.weight import NATIVE_DTYPES, WeightTensor
from .source import ModelSource

_log = logging.getLogger("medusa_ext")

# Canonical name of a layer's weight -> (name in a Hugging Face checkpoint, name in a GGUF file).
_LAYER_NAMES: Final = {
    "attn_norm": ("input_layernorm.weight", "attn_norm.weight"),
    "q": ("self_attn.q_proj.weight", "attn_q.weight"),
    "k": ("self_attn.k_proj.weight", "attn_k.weight"),
    "v": ("self_attn.v_proj.weight", "attn_v.weight"),
    "q_bias": ("self_attn.q_proj.bias", "attn_q.bias"),
    "k_bias": ("self_attn.k_proj.bias", "attn_k.bias"),
    "v_bias": ("self_attn.v_proj.bias", "attn_v.bias"),
    "q_norm": ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    "k_norm": ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    "o": ("self_attn.o_proj.weight", "attn_output.weight"),
    "ffn_norm": ("post_attention_layernorm.weight", "ffn_norm.weight"),
    "gate": ("mlp.gate_proj.weight", "ffn_gate.weight"),
    "up": ("mlp.up_proj.weight", "ffn_up.weight"),
    "down": ("mlp.down_proj.weight", "ffn_down.weight"),
}
_MODEL_NAMES: Final = {
    "embed": ("model.embed_tokens.weight", "token_embd.weight"),
    "final_norm": ("model.norm.weight", "output_norm.weight"),
    "lm_head": ("lm_head.weight", "output.weight"),
}
_MAX_PROBLEMS: Final = 20


@dataclass(frozen=True)
class PlannedWeight:
    """A weight the model needs: canonical name, name in the file, shape, and the number of heads
    whose rows are to be unpermuted (0: none)."""

    canonical: str
    stored: str
    shape: tuple[int, ...]
    permuted_heads: int = 0


def plan_weights(source: ModelSource) -> list[PlannedWeight]:
    """Every weight the configuration calls for, in the order of the forward pass."""
    config = source.config
    column = 1 if source.gguf is not None else 0
    # Llama GGUFs store q and k with each head's rows interleaved for adjacent-pair rotation.
    permuted = source.gguf is not None and config.family == "llama"
    heads = {"q": config.num_query_heads, "k": config.num_kv_heads} if permuted else {}
    heads |= {f"{name}_bias": count for name, count in heads.items()}
    hidden = config.hidden_size
    matrix = (config.vocab_size, hidden)
    plan = [PlannedWeight("embed", _MODEL_NAMES["embed"][column], matrix)]
    for layer in range(config.num_layers):
        prefix = f"blk.{layer}." if column else f"model.layers.{layer}."
        for name, shape in _layer_shapes(config).items():
            stored = prefix + _LAYER_NAMES[name][column]
            canonical = f"layers.{layer}.{name}"
            plan.append(PlannedWeight(canonical, stored, shape, heads.get(name, 0)))
    plan.append(PlannedWeight("final_norm", _MODEL_NAMES["final_norm"][column], (hidden,)))
    if not config.tie_word_embeddings:
        plan.append(PlannedWeight("lm_head", _MODEL_NAMES["lm_head"][column], matrix))
    return plan


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden, size, ffn = config.hidden_size, config.head_size, config.ffn_size
    query, kv = config.num_query_heads * size, config.num_kv_heads * size
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,),
        "q": (query, hidden),
        "k": (kv, hidden),
        "v": (kv, hidden),
    }
    if config.qkv_bias:
        shapes |= {"q_bias": (query,), "k_bias": (kv,), "v_bias": (kv,)}
    if config.qk_norm:
        shapes |= {"q_norm": (size,), "k_norm": (size,)}
    return shapes | {
        "o": (hidden, query),
        "ffn_norm": (hidden,),
        "gate": (ffn, hidden),
        "up": (ffn, hidden),
        "down": (hidden, ffn),
    }


def check_weights(source: ModelSource) -> list[PlannedWeight]:
    """The plan, after making sure that every weight is there in its shape.

    Raises ValueError naming the file and every missing or mis-shaped tensor.
    """
    plan = plan_weights(source)
    problems = []
    for item in plan:
        if item.stored not in source.tensors:
            problems.append(f"{item.stored} is missing (needs {list(item.shape)})")
            continue
        shape = source.tensors[item.stored].shape
        if shape != item.shape:
            problems.append(f"{item.stored} needs shape {list(item.shape)}, got {list(shape)}")
    if problems:
        shown = "; ".join(problems[:_MAX_PROBLEMS])
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" * (len(problems) > _MAX_PROBLEMS)
        raise ValueError(f"{source.path}: {len(problems)} weights do not fit: {shown}{more}")
    return plan


def iter_weights(
    source: ModelSource, *, progress: bool = False
) -> Iterator[tuple[str, WeightTensor]]:
    """Yields (canonical name, weight), one at a time, in the order of the forward pass.

    Names: `embed`; `layers.{i}.` with attn_norm, q, k, v, q_bias, k_bias, v_bias, q_norm, k_norm,
    o, ffn_norm, gate, up, down; `final_norm`; `lm_head` (absent when tied). Biases and q/k norms
    only where the model has them. Matrices are [out, in]. Rows of q and k are in the order of
    Hugging Face checkpoints (rotation of halves), also from GGUF files.

    All names and shapes are checked before the first weight is yielded; see `check_weights`.
    `progress` shows a bar on standard error.
    """
    plan = check_weights(source)
    _notice_conversions(source, plan)
    items: Iterator[PlannedWeight] = iter(plan)
    if progress:
        from tqdm import tqdm

        items = iter(tqdm(plan, desc="loading weights", unit="tensor", leave=False))
    for item in items:
        weight = source.tensors[item.stored]
        if item.permuted_heads:
            weight = weight.with_row_order(
                half_rotation_order(weight.shape[0], item.permuted_heads)
            )
        yield item.canonical, weight


def half_rotation_order(num_rows: int, num_heads: int) -> npt.NDArray[np.int64]:
    """For each row of a q or k matrix that rotates halves, the row of a Llama GGUF it comes from.

    GGUF's conversion moved row t * D/2 + j of a head (t = 0, 1) to row 2 j + t.
    """
    order = np.arange(num_rows, dtype=np.int64).reshape(num_heads, -1, 2)
    return order.swapaxes(1, 2).reshape(-1).copy()


def _notice_conversions(source: ModelSource, plan: list[PlannedWeight]) -> None:
    """One notice for all the weights whose format is not taken as it is."""
    formats = [source.tensors[item.stored].storage for item in plan]
    foreign = {f: formats.count(f) for f in sorted(set(formats) - set(NATIVE_DTYPES))}
    if foreign:
        listed = ", ".join(f"{count} of {name}" for name, count in foreign.items())
        _log.warning("%s: tensors dequantised to 16 bits: %s", source.path, listed)


def base_fingerprint(source: ModelSource) -> str:
    """A short hash of sizes and norm weights, the same for any storage format of the weights.

    Norms stay 16-bit or wider in every format, so a quantised copy of a model keeps its
    fingerprint, and a fine-tuned one (norms trained) does not. Rounded to bfloat16 for hashing.
    """
    config = source.config
    sizes = (config.num_layers, config.hidden_size, config.vocab_size, config.ffn_size)
    digest = hashlib.sha256(repr(sizes).encode())
    for item in check_weights(source):
        if item.canonical.endswith("_norm"):
            bits = source.tensors[item.stored].to_float().view(np.uint32).astype(np.uint64)
            rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
            digest.update(rounded.astype("<u2").tobytes())
    return digest.hexdigest()[:32]
