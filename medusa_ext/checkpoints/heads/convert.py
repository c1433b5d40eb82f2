"""Writing heads in other projects' layouts; what a layout cannot hold is an error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..checks import failure
from .v3 import save_heads, write_heads_directory

if TYPE_CHECKING:
    import torch

    from .checkpoint import HeadsCheckpoint

FORMATS: Final = ("v2", "v0.1", "vllm", "v3")


def convert(
    heads: HeadsCheckpoint,
    format: str,
    out: str | Path,
    *,
    base_lm_head: torch.Tensor | None = None,
    vocab_size: int | None = None,
    drop_traces: bool = False,
) -> Path:
    """Writes plain heads as shared-lm_head ("v2"), "v0.1", "vllm", or our own "v3".

    `base_lm_head` [V, H] is what heads without lm heads of their own score with; v0.1 and vLLM
    store it, and v2 leaves out lm heads that equal it. `vocab_size` is the base's, needed for vLLM
    with a draft vocabulary if the checkpoint does not know it. `drop_traces` agrees to lose rank
    traces, which only version 3 stores. Missing biases are written as the zeros they stand for.

    Returns the directory written. Raises ValueError naming what would be lost.
    """
    if format not in FORMATS:
        raise failure(heads.path, "format", f"one of {FORMATS}", format)
    if format == "v3":
        return save_heads(heads, out)
    losses = _common_losses(heads, drop_traces)
    if format == "v2":
        losses += _losses_without_lm_heads(heads, base_lm_head)
    elif format == "v0.1" and heads.token_map is not None:
        losses.append("the token map (draft vocabulary)")
    if losses:
        raise ValueError(f"{heads.path}: {format} heads cannot hold {'; '.join(losses)}")
    if format == "vllm":
        return _write_vllm(heads, Path(out), base_lm_head, vocab_size)
    tensors = _resblocks(heads, "{h}.{l}.linear.{field}")
    if format == "v2":
        return write_heads_directory(heads, Path(out), tensors, {"version": "2"})
    matrices = _lm_heads(heads, base_lm_head, "v0.1")
    for h in range(heads.num_heads):
        matrix = matrices[h if len(matrices) > 1 else 0]
        _put_apart(tensors, f"{h}.{heads.num_layers}.weight", matrix)
    return write_heads_directory(heads, Path(out), tensors, {"version": "1"})


def _common_losses(heads: HeadsCheckpoint, drop_traces: bool) -> list[str]:
    losses = []
    if heads.kind != "medusa":
        losses.append(f"the conditioning of kind {heads.kind!r}")
    if heads.adapters:
        losses.append(f"the adapters of {len(heads.adapters)} base weights")
    if heads.rank_traces is not None and not drop_traces:
        losses.append("the rank traces (drop_traces leaves them out)")
    return losses


def _losses_without_lm_heads(
    heads: HeadsCheckpoint, base_lm_head: torch.Tensor | None
) -> list[str]:
    """What is lost if heads score with the base's lm_head."""
    import torch

    if heads.token_map is not None:
        return ["the token map (draft vocabulary)"]
    if heads.lm_heads is None:
        return []
    if base_lm_head is None:
        return ["lm heads of its own (with base_lm_head, those equal to the base's are left out)"]
    same = all(
        m.shape == base_lm_head.shape and torch.equal(m, base_lm_head.to(m.dtype))
        for m in heads.lm_heads
    )
    return [] if same else ["lm heads of its own that differ from the base's"]


def _resblocks(heads: HeadsCheckpoint, template: str) -> dict[str, torch.Tensor]:
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for h, head in enumerate(heads.blocks):
        for number, block in enumerate(head):
            bias = block.bias
            if bias is None:
                bias = torch.zeros(heads.hidden_size, dtype=block.weight.dtype)
            for field, tensor in (("weight", block.weight), ("bias", bias)):
                _put_apart(tensors, template.format(h=h, l=number, field=field), tensor)
    return tensors


def _put_apart(tensors: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> None:
    """Adds a tensor, copied if an earlier one is in the same memory (safetensors refuses that:
    one block applied several times, one lm_head for all heads)."""
    taken = any(t.data_ptr() == tensor.data_ptr() for t in tensors.values())
    tensors[name] = tensor.clone() if taken else tensor.contiguous()


def _lm_heads(
    heads: HeadsCheckpoint, base_lm_head: torch.Tensor | None, format: str
) -> tuple[torch.Tensor, ...]:
    """The heads' own lm heads, or the base's in the type of the heads' weights."""
    if heads.lm_heads is not None:
        return tuple(m.contiguous() for m in heads.lm_heads)
    if base_lm_head is None:
        need = "base_lm_head, for these heads have no lm head of their own"
        raise failure(heads.path, f"converting to {format}", need, None)
    if base_lm_head.dim() != 2 or base_lm_head.shape[1] != heads.hidden_size:
        need = f"a matrix [vocabulary, {heads.hidden_size}]"
        raise failure(heads.path, "base_lm_head", need, list(base_lm_head.shape))
    return (base_lm_head.contiguous(),)


def _write_vllm(
    heads: HeadsCheckpoint, out: Path, base_lm_head: torch.Tensor | None, vocab_size: int | None
) -> Path:
    matrices = _lm_heads(heads, base_lm_head, "vllm")
    if heads.lm_heads is None and heads.token_map is not None:
        matrices = (matrices[0][heads.token_map.long()].contiguous(),)
    rows = int(matrices[0].shape[0])
    whole = vocab_size or heads.vocab_size
    if heads.token_map is None:
        whole = rows
    elif whole is None:
        raise failure(heads.path, "vocab_size", "the base model's, for a draft vocabulary", None)
    tensors = _resblocks(heads, "blocks.{h}.layers.{l}.{field}")
    for h, matrix in enumerate(matrices):
        tensors[f"lm_heads.{h}.weight"] = matrix
    if heads.token_map is not None:
        tensors["token_map"] = heads.token_map.long()
    config: dict[str, Any] = {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "vocab_size": whole,
        "num_heads": heads.num_heads,
        "num_hidden_layers": heads.num_layers,
        "max_paths": 64,
        "topk": 10,
        "truncated_vocab_size": None if heads.token_map is None else rows,
        "max_seq_len": 2**20,
        "medusa_fc_bias": True,
        "original_lm_head": len(matrices) == 1 and heads.num_heads > 1,
        "logit_scale": 1.0,
    }
    return write_heads_directory(heads, out, tensors, config, "model.safetensors")
