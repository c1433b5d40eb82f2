"""Batched answering in plain torch: a second backend for distill.

The native session is the default. This one serves devices where torch has faster matrix products
than the native kernels (a GPU, a CPU with bfloat16 instructions): matrix products run in `dtype`,
the residual stream and the choice of the next token in float32. It keeps its
own cache, whose slots are refilled one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ..decoder import Decoder
from .answer import Emission
from .slots import SlotBackend

# bfloat16 logits of this distance from the largest may be the true largest: compared in float32.
_TIE_RANGE = 0.5
_PREFILL_ROWS = 1024


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


class _Slots:
    """The memory of a forward: the slots of `index`, each from the position of its first new row.

    cache [2, L, B, G, S, D]: keys, then values, in place.
    """

    def __init__(self, cache: torch.Tensor, index: torch.Tensor, positions: torch.Tensor) -> None:
        self._cache, self._index, self._positions = cache, index, positions
        self._used = int(positions.max()) + 1
        self._whole = index.tolist() == list(range(cache.shape[2]))

    def extend(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores k and v [R, G, T, D]; all of the slots' used rows [R, G, S, D]."""
        found = []
        for side, new in zip(self._cache[:, layer], (k, v), strict=True):
            side[self._index[:, None], :, self._positions] = new.transpose(1, 2)
            used = side[:, :, : self._used]
            found.append(used if self._whole else used[self._index])
        return found[0], found[1]


class TorchBackend(SlotBackend):
    """Slots of sequences over one model."""

    def __init__(self, decoder: Decoder, batch: int, max_length: int) -> None:
        super().__init__(batch, max_length, decoder.config.hidden_size)
        self._decoder, self._device = decoder, decoder.device
        self._lm_head_cast = decoder.lm_head.to(decoder.dtype)
        config = decoder.config
        shape = (2, config.num_layers, batch, config.num_kv_heads, max_length, config.head_size)
        self._cache = torch.zeros(shape, dtype=decoder.dtype, device=self._device)
        self._lengths = torch.zeros(batch, dtype=torch.long, device=self._device)
        self._roots = torch.zeros(batch, dtype=torch.long, device=self._device)
        self._uniforms = torch.zeros(batch, max_length, device=self._device)

    @torch.inference_mode()
    def start(
        self, slots: Sequence[int], prompts: Sequence[npt.NDArray[np.int32]], seeds: Sequence[int]
    ) -> list[Emission]:
        """Prefills prompts into free slots, in batches padded on the right: a query sees nothing
        after its own position."""
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
            positions = torch.arange(ids.shape[1], device=self._device).expand(ids.shape)
            hidden = self._forward(ids.to(self._device), index, positions)
            self._lengths[index] = lengths
            last = hidden[torch.arange(len(rows), device=self._device), lengths - 1]
            emissions.update(zip(rows, self._choose(last, index), strict=True))
        return [emissions[row] for row in range(len(slots))]

    @torch.inference_mode()
    def step(self, slots: Sequence[int]) -> list[Emission]:
        """One token further in each of `slots`."""
        index = torch.tensor(list(slots), device=self._device)
        hidden = self._forward(self._roots[index, None], index, self._lengths[index, None])
        self._lengths[index] += 1
        return self._choose(hidden[:, 0], index)

    def _forward(
        self, ids: torch.Tensor, index: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        return self._decoder.forward(ids, positions, _Slots(self._cache, index, positions))

    def _choose(self, hidden: torch.Tensor, index: torch.Tensor) -> list[Emission]:
        """The next token of each row of hidden [R, H] and the row itself."""
        logits = functional.linear(hidden.to(self._decoder.dtype), self._lm_head_cast)
        if self.temperature > 0:
            weights = torch.softmax(logits.float() / self.temperature, dim=-1).cumsum(-1)
            draws = self._uniforms[index, self._lengths[index] - 1, None] * weights[:, -1:]
            tokens = torch.searchsorted(weights, draws).squeeze(1)
            tokens = tokens.clamp_(max=logits.shape[1] - 1)
        else:
            near = logits >= logits.amax(-1, keepdim=True) - _TIE_RANGE
            rows, ids = near.nonzero(as_tuple=True)
            exact = (hidden[rows] * self._decoder.lm_head[ids].float()).sum(-1)
            scores = torch.full(logits.shape[:1], -torch.inf, device=self._device)
            scores = scores.scatter_reduce(0, rows, exact, "amax")
            best = (exact == scores[rows]).nonzero().squeeze(1).flip(0)
            tokens = torch.zeros(len(index), dtype=torch.long, device=self._device)
            tokens[rows[best]] = ids[best]
        self._roots[index] = tokens
        rows_out = hidden.float().cpu().numpy()
        return [Emission(int(token), rows_out[row]) for row, token in enumerate(tokens.tolist())]
