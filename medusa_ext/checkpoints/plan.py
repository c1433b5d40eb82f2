"""Which weights a model needs: canonical names, names in its files, shapes; and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from .config import ModelConfig
from .files.weight import WeightTensor

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
    file_name: str
    shape: tuple[int, ...]
    permuted_heads: int = 0


def plan_weights(config: ModelConfig, *, in_gguf: bool) -> tuple[PlannedWeight, ...]:
    """Every weight the configuration calls for, in the order of the forward pass."""
    column = 1 if in_gguf else 0
    # Llama GGUFs store q and k with each head's rows interleaved for adjacent-pair rotation.
    permuted = in_gguf and config.family == "llama"
    heads = {"q": config.num_query_heads, "k": config.num_kv_heads} if permuted else {}
    heads |= {f"{name}_bias": count for name, count in heads.items()}
    hidden = config.hidden_size
    matrix = (config.vocab_size, hidden)
    plan = [PlannedWeight("embed", _MODEL_NAMES["embed"][column], matrix)]
    for layer in range(config.num_layers):
        prefix = f"blk.{layer}." if in_gguf else f"model.layers.{layer}."
        for name, shape in _layer_shapes(config).items():
            file_name = prefix + _LAYER_NAMES[name][column]
            canonical = f"layers.{layer}.{name}"
            plan.append(PlannedWeight(canonical, file_name, shape, heads.get(name, 0)))
    plan.append(PlannedWeight("final_norm", _MODEL_NAMES["final_norm"][column], (hidden,)))
    if not config.tie_word_embeddings:
        plan.append(PlannedWeight("lm_head", _MODEL_NAMES["lm_head"][column], matrix))
    return tuple(plan)


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
