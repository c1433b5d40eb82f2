"""Medusa heads of every published layout, brought into one form.

A head k maps the final-norm output x to logits: y = x; for each of its ResBlocks l,
y <- y + SiLU(W[k,l] y + b[k,l]); logits = U_k y. In root-conditioned heads (kind "root") the first
block also sees the root token: e = embed[root] * (rms(x) / rms(embed[root])) and
y1 = x + SiLU(W[k,0] x + E[k] e + b[k,0]).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ResBlock:
    """One block's weight [H, H] and bias [H] (None: the checkpoint has none)."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True)
class HeadsCheckpoint:
    """Medusa heads as loaded; tensors are views on the mapped file where the format allows.

    `blocks[k][l]` is ResBlock l of head k. `lm_heads` holds one matrix [V', H] per head, or a
    single one for all heads, or is None: the base's own lm_head (its rows `token_map` if there is
    one). `token_map` [V'] int32 maps a draft id to a token id. `root_weights` [H, H] per head are
    the E of root-conditioned heads. `rank_traces` [T, K] holds, per position of a calibration
    run, the rank each head gave to the true token. `adapters` maps a canonical weight name to
    (down [r, in], up [out, r]), to be added to the base as up @ down. `merged` says that the heads
    came inside a whole model, whose base they belong to.
    """

    path: Path
    layout: str
    kind: str
    hidden_size: int
    blocks: tuple[tuple[ResBlock, ...], ...]
    lm_heads: tuple[torch.Tensor, ...] | None = None
    token_map: torch.Tensor | None = None
    root_weights: tuple[torch.Tensor, ...] | None = None
    rank_traces: torch.Tensor | None = None
    adapters: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    base_name: str | None = None
    base_fingerprint: str | None = None
    vocab_size: int | None = None
    merged: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def num_heads(self) -> int:
        """K."""
        return len(self.blocks)

    @property
    def num_layers(self) -> int:
        """ResBlocks per head."""
        return len(self.blocks[0])

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights under the native builder's names, one at a time: `{k}.{l}.weight`,
        `{k}.{l}.bias`, `{k}.root`, then `lm_head` (one for all) or `{k}.lm_head`."""
        for k, head in enumerate(self.blocks):
            for layer, block in enumerate(head):
                yield f"{k}.{layer}.weight", block.weight
                if block.bias is not None:
                    yield f"{k}.{layer}.bias", block.bias
            if self.root_weights is not None:
                yield f"{k}.root", self.root_weights[k]
        matrices = self.lm_heads or ()
        if len(matrices) == 1:
            yield "lm_head", matrices[0]
        else:
            for k, matrix in enumerate(matrices):
                yield f"{k}.lm_head", matrix
