"""A model's forward in plain torch: differentiable, over the record that the native one reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from ..checkpoints.config import LayerSpec
from .torch_weights import TorchWeights


class Memory(Protocol):
    """Where keys and values of earlier positions are."""

    def extend(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes the new ones of a layer, k and v [R, G, T, D]; returns all of them, [R, G, S, D],
        whose index along S is their position."""


@dataclass
class LayerTensors:
    """One decoder layer's weights; biases and norms are None where the layer has none."""

    attention_norm: torch.Tensor | None
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: torch.Tensor
    attention_post_norm: torch.Tensor | None
    ffn_norm: torch.Tensor | None
    gate_up: torch.Tensor
    down: torch.Tensor
    ffn_post_norm: torch.Tensor | None


def _layer(weights: TorchWeights, index: int) -> LayerTensors:
    prefix = f"layers.{index}."
    qkv = weights.joined(prefix, ("q", "k", "v"))
    gate_up = weights.joined(prefix, ("gate", "up"))
    if qkv is None or gate_up is None:
        raise ValueError(f"layer {index}: its weights were already taken by another decoder")
    return LayerTensors(
        attention_norm=weights.get(prefix + "attn_norm"),
        qkv=qkv,
        qkv_bias=weights.joined(prefix, ("q_bias", "k_bias", "v_bias")),
        q_norm=weights.get(prefix + "q_norm"),
        k_norm=weights.get(prefix + "k_norm"),
        output=weights[prefix + "o"],
        attention_post_norm=weights.get(prefix + "attn_post_norm"),
        ffn_norm=weights.get(prefix + "ffn_norm"),
        gate_up=gate_up,
        down=weights[prefix + "down"],
        ffn_post_norm=weights.get(prefix + "ffn_post_norm"),
    )


class Decoder:
    """Matrix products run in the weights' own type, the residual stream in float32. Nothing is
    changed in place: gradients reach every tensor of `layers`, the embedding and the norms that
    ask for them."""

    def __init__(self, weights: TorchWeights, max_length: int) -> None:
        """`max_length`: positions the rotary tables have. Takes the weights' matrices over."""
        self.config = weights.config
        self.dtype, self.device = weights.dtype, weights.device
        self.layers = [_layer(weights, index) for index in range(self.config.num_layers)]
        self.embedding = weights["embed"]
        self.final_norm = weights["final_norm"]
        self.lm_head = weights.lm_head
        self._turns = []
        for frequencies in self.config.inverse_frequencies:
            angles = np.outer(np.arange(max_length), np.concatenate((frequencies, frequencies)))
            turns = torch.from_numpy(angles).to(self.device)
            self._turns.append((turns.cos().float(), turns.sin().float()))

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor | None = None,
        memory: Memory | None = None,
    ) -> torch.Tensor:
        """ids [R, T] -> final-norm output [R, T, H] in float32.

        positions [R, T]: 0 ... T - 1 of every row by default. Without a memory the ids see one
        another alone, with one also what it holds of earlier positions.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=self.device).expand(ids.shape)
        visible: dict[int, torch.Tensor] = {}
        x = functional.embedding(ids, self.embedding).float()
        for index, (spec, layer) in enumerate(zip(self.config.layers, self.layers, strict=True)):
            q, k, v = self._project(spec, layer, x, positions)
            if memory is not None:
                k, v = memory.extend(index, k, v)
            if spec.window not in visible:
                visible[spec.window] = _visible(positions, k.shape[2], spec.window)
            mixed = _attend(q, k, v, visible[spec.window])
            mixed = functional.linear(mixed.transpose(1, 2).flatten(2), layer.output)
            x = x + self._norm(mixed.float(), layer.attention_post_norm)
            x = x + self._norm(self._feed_forward(layer, x).float(), layer.ffn_post_norm)
        return self._norm(x, self.final_norm)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [..., H] -> [..., V] in float32."""
        return functional.linear(hidden, self.lm_head)

    def _norm(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """x itself where there is no norm."""
        if weight is None:
            return x
        return functional.rms_norm(x, (x.shape[-1],), weight, self.config.rms_eps)

    def _project(
        self, spec: LayerSpec, layer: LayerTensors, x: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x [R, T, H] -> q [R, Q, T, D], k and v [R, G, T, D], rotated, in the products' type."""
        config = self.config
        normed = self._norm(x, layer.attention_norm).to(self.dtype)
        qkv = functional.linear(normed, layer.qkv).float()
        if layer.qkv_bias is not None:
            qkv = qkv + layer.qkv_bias
        qkv = qkv.reshape(*x.shape[:2], -1, config.head_size)
        q, k, v = torch.split(
            qkv, [config.num_query_heads, config.num_kv_heads, config.num_kv_heads], dim=2
        )
        q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        cos, sin = (turns[positions][:, :, None] for turns in self._turns[spec.rope])
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        q, k, v = (heads.transpose(1, 2).to(self.dtype) for heads in (q, k, v))
        return q, k, v

    def _feed_forward(self, layer: LayerTensors, x: torch.Tensor) -> torch.Tensor:
        normed = self._norm(x, layer.ffn_norm).to(self.dtype)
        gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
        return functional.linear(functional.silu(gate) * up, layer.down)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding in the half-split layout; x [..., D], cos and sin broadcast to it."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


def _visible(positions: torch.Tensor, num_keys: int, window: int) -> torch.Tensor:
    """[R, T, S]: whether the query at a position sees the key at s, through a window or none."""
    keys = torch.arange(num_keys, device=positions.device)
    visible = keys <= positions[..., None]
    return visible & (keys > positions[..., None] - window) if window else visible


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """q [R, Q, T, D] over k and v [R, G, S, D] -> [R, Q, T, D].

    The query heads of a group are rows of their key head: no key is read twice.
    """
    group = q.shape[1] // k.shape[1]
    rows = q.reshape(q.shape[0], k.shape[1], group * q.shape[2], q.shape[3])
    mask = visible.repeat(1, group, 1)[:, None]
    return functional.scaled_dot_product_attention(rows, k, v, attn_mask=mask).reshape(q.shape)
