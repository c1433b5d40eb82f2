"""Batched answering in plain torch: a second backend for distill.

The native session is the default. This one serves devices where torch has faster matrix products
than the native kernels (a GPU, a CPU with bfloat16 instructions): matrix products run in `dtype`,
the residual stream and the choice of the next token in float32. It keeps its
own cache, whose slots are refilled one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from .data.answer import Emission
from .data.slots import SlotBackend
from .torch_weights import TorchWeights

# bfloat16 logits of this distance from the largest may be the true largest: compared in float32.
_TIE_RANGE = 0.5
_PREFILL_ROWS = 1024


@dataclass
class _Layer:
    """One decoder layer's weights; biases and q/k norms are None where the family has none."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: torch.Tensor
    ffn_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


def _layer(weights: TorchWeights, index: int) -> _Layer:
    prefix = f"layers.{index}."
    qkv = weights.joined(prefix, ("q", "k", "v"))
    gate_up = weights.joined(prefix, ("gate", "up"))
    if qkv is None or gate_up is None:
        raise ValueError(f"layer {index}: its weights were already taken by another backend")
    return _Layer(
        attention_norm=weights[prefix + "attn_norm"],
        qkv=qkv,
        qkv_bias=weights.joined(prefix, ("q_bias", "k_bias", "v_bias")),
        q_norm=weights.get(prefix + "q_norm"),
        k_norm=weights.get(prefix + "k_norm"),
        output=weights[prefix + "o"],
        ffn_norm=weights[prefix + "ffn_norm"],
        gate_up=gate_up,
        down=weights[prefix + "down"],
    )


def _batches_of_like_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of `lengths`, sorted and cut so that a padded batch stays below _PREFILL_ROWS."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > _PREFILL_ROWS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class TorchBackend(SlotBackend):
    """Slots of sequences over one model."""

    def __init__(
        self,
        weights: TorchWeights,
        batch: int,
        max_length: int,
    ) -> None:
        """Raises ValueError if the model attends through a window shorter than max_length."""
        config = weights.config
        window = min((layer.window for layer in config.layers if layer.window), default=0)
        if window and window < max_length:
            raise ValueError(f"max_length: needs at most the window {window}, got {max_length}")
        super().__init__(batch, max_length, config.hidden_size)
        self._dtype, self._device = weights.dtype, weights.device
        self._eps = config.rms_eps
        self._num_q, self._num_kv = config.num_query_heads, config.num_kv_heads
        self._head_size = config.head_size
        self._layers = [_layer(weights, index) for index in range(config.num_layers)]
        self._embedding = weights["embed"]
        self._final_norm = weights["final_norm"]
        self._lm_head = weights.lm_head
        self._lm_head_cast = self._lm_head.to(self._dtype)
        # Keys are kept transposed [.., D, S]: thin products with them are twice as fast on a CPU.
        shape = (len(self._layers), batch, self._num_kv)
        size, dtype, device = self._head_size, self._dtype, self._device
        self._keys = torch.zeros(*shape, size, max_length, dtype=dtype, device=device)
        self._values = torch.zeros(*shape, max_length, size, dtype=dtype, device=device)
        angles = np.outer(np.arange(max_length), config.inverse_frequencies[0])
        turns = torch.from_numpy(np.concatenate((angles, angles), axis=1)).to(self._device)
        self._cos, self._sin = turns.cos().float(), turns.sin().float()
        self._lengths = torch.zeros(batch, dtype=torch.long, device=self._device)
        self._roots = torch.zeros(batch, dtype=torch.long, device=self._device)
        self._uniforms = torch.zeros(batch, max_length, device=self._device)

    @torch.inference_mode()
    def start(
        self, slots: Sequence[int], prompts: Sequence[npt.NDArray[np.int32]], seeds: Sequence[int]
    ) -> list[Emission]:
        """Prefills prompts into free slots, in batches padded on the right."""
        for slot, seed in zip(slots, seeds, strict=True):
            draws = np.random.default_rng(seed).random(self.max_length, dtype=np.float32)
            self._uniforms[slot] = torch.from_numpy(draws).to(self._device)
        emissions: dict[int, Emission] = {}
        for rows in _batches_of_like_length([len(prompt) for prompt in prompts]):
            index = torch.tensor([slots[row] for row in rows], device=self._device)
            lengths = torch.tensor([len(prompts[row]) for row in rows], device=self._device)
            ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
            for place, row in enumerate(rows):
                prompt = torch.from_numpy(np.asarray(prompts[row], dtype=np.int64))
                ids[place, : len(prompt)] = prompt
            hidden = self._forward_prompts(ids.to(self._device), index)
            self._lengths[index] = lengths
            last = hidden[torch.arange(len(rows), device=self._device), lengths - 1]
            emissions.update(zip(rows, self._choose(last, index), strict=True))
        return [emissions[row] for row in range(len(slots))]

    @torch.inference_mode()
    def step(self, slots: Sequence[int]) -> list[Emission]:
        """One token further in each of `slots`."""
        index = torch.tensor(list(slots), device=self._device)
        hidden = self._forward_step(index)
        self._lengths[index] += 1
        return self._choose(hidden, index)

    def _choose(self, hidden: torch.Tensor, index: torch.Tensor) -> list[Emission]:
        """The next token of each row of hidden [R, H] and the row itself."""
        logits = functional.linear(hidden.to(self._dtype), self._lm_head_cast)
        if self.temperature > 0:
            weights = torch.softmax(logits.float() / self.temperature, dim=-1).cumsum(-1)
            draws = self._uniforms[index, self._lengths[index] - 1, None] * weights[:, -1:]
            tokens = torch.searchsorted(weights, draws).squeeze(1)
            tokens = tokens.clamp_(max=logits.shape[1] - 1)
        else:
            near = logits >= logits.amax(-1, keepdim=True) - _TIE_RANGE
            rows, ids = near.nonzero(as_tuple=True)
            exact = (hidden[rows] * self._lm_head[ids].float()).sum(-1)
            scores = torch.full(logits.shape[:1], -torch.inf, device=self._device)
            scores = scores.scatter_reduce(0, rows, exact, "amax")
            best = (exact == scores[rows]).nonzero().squeeze(1).flip(0)
            tokens = torch.zeros(len(index), dtype=torch.long, device=self._device)
            tokens[rows[best]] = ids[best]
        self._roots[index] = tokens
        rows_out = hidden.float().cpu().numpy()
        return [Emission(int(token), rows_out[row]) for row, token in enumerate(tokens.tolist())]

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self._eps)

    def _rotate(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Rotary embedding in the half-split layout; x [..., D], cos and sin broadcast to it."""
        half = x.shape[-1] // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return x * cos + turned * sin

    def _project(
        self, layer: _Layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x [R, T, H] -> q [R, Q, T, D], k and v [R, G, T, D], rotated, in the cache's type."""
        rows, steps, _ = x.shape
        normed = self._norm(x, layer.attention_norm).to(self._dtype)
        qkv = functional.linear(normed, layer.qkv).float()
        if layer.qkv_bias is not None:
            qkv = qkv + layer.qkv_bias
        qkv = qkv.view(rows, steps, -1, self._head_size)
        q, k, v = torch.split(qkv, [self._num_q, self._num_kv, self._num_kv], dim=2)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        q, k = self._rotate(q, cos, sin), self._rotate(k, cos, sin)
        return (
            q.transpose(1, 2).to(self._dtype),
            k.transpose(1, 2).to(self._dtype),
            v.transpose(1, 2).to(self._dtype),
        )

    def _feed_forward(self, layer: _Layer, x: torch.Tensor) -> torch.Tensor:
        normed = self._norm(x, layer.ffn_norm).to(self._dtype)
        gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
        return x + functional.linear(functional.silu(gate) * up, layer.down)

    def _forward_prompts(self, ids: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """ids [R, T] -> final-norm output [R, T, H]; keys and values go to the slots of `index`."""
        rows, steps = ids.shape
        cos, sin = self._cos[:steps, None, :], self._sin[:steps, None, :]
        x = functional.embedding(ids, self._embedding).float()
        for number, layer in enumerate(self._layers):
            q, k, v = self._project(layer, x, cos, sin)
            self._keys[number, index, :, :, :steps] = k.transpose(2, 3)
            self._values[number, index, :, :steps] = v
            mixed = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True
            )
            mixed = mixed.transpose(1, 2).reshape(rows, steps, -1)
            x = x + functional.linear(mixed, layer.output)
            x = self._feed_forward(layer, x)
        return self._norm(x, self._final_norm)

    def _forward_step(self, index: torch.Tensor) -> torch.Tensor:
        """The roots of the slots of `index` -> final-norm output [R, H]."""
        positions = self._lengths[index]
        used = int(positions.max()) + 1
        cos, sin = self._cos[positions, None, None, :], self._sin[positions, None, None, :]
        hidden_keys = torch.arange(used, device=self._device) > positions[:, None]
        scale = self._head_size**-0.5
        whole = len(index) == self.batch
        groups = self._num_q // self._num_kv
        x = functional.embedding(self._roots[index], self._embedding).float()[:, None]
        for number, layer in enumerate(self._layers):
            q, k, v = self._project(layer, x, cos, sin)
            self._keys[number, index, :, :, positions] = k[:, :, 0]
            self._values[number, index, :, positions] = v[:, :, 0]
            keys, values = self._keys[number, ..., :used], self._values[number, :, :, :used]
            if not whole:
                keys, values = keys[index], values[index]
            # The query heads of a group are its rows: one thin product per key head.
            q = q.reshape(len(index), self._num_kv, groups, self._head_size)
            scores = torch.matmul(q, keys).float() * scale
            scores.masked_fill_(hidden_keys[:, None, None, :], -torch.inf)
            mixed = torch.matmul(torch.softmax(scores, dim=-1).to(self._dtype), values)
            x = x + functional.linear(mixed.reshape(len(index), 1, -1), layer.output)
            x = self._feed_forward(layer, x)
        return self._norm(x[:, 0], self._final_norm)
