"""Batched answering through the native session: one-node trees, slots refilled one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...engine.session import common_prefix
from ...engine.step import run_step
from .backend import Emission, Int32Array

if TYPE_CHECKING:
    from ... import _C


class NativeBackend:
    """Slots of one native session; see backend.Backend for the interface."""

    def __init__(self, model: _C.Model, batch: int, max_length: int, hidden_size: int) -> None:
        """Raises MemoryError naming the size if the cache does not fit."""
        from ... import _C

        self.batch = batch
        self.max_length = max_length
        self.hidden_size = hidden_size
        # At this batch size the cache is read as much as the weights are: 16 bits halve that.
        self._session = _C.Session(model, batch, max_length, 1, "bfloat16")
        self._temperature = 0.0

    def set_temperature(self, temperature: float) -> None:
        """How tokens are drawn in slots that start from now on; 0 is greedy."""
        self._temperature = temperature

    def start(
        self, slots: Sequence[int], prompts: Sequence[Int32Array], seeds: Sequence[int]
    ) -> list[Emission]:
        """Prefills prompts into free slots."""
        started = []
        for slot, prompt, seed in zip(slots, prompts, seeds, strict=True):
            self._session.set_sampling(slot, self._temperature, seed=seed)
            # Chats begin alike: what the slot's last prompt shares is still in the cache.
            shared = common_prefix(self._session.text(slot), prompt[:-1].tolist())
            self._session.truncate(slot, shared)
            token = self._session.prefill(slot, prompt[shared:], keep_hidden=True)
            started.append(Emission(token, self._session.prefill_hidden()[-1].copy()))
        return started

    def step(self, slots: Sequence[int]) -> list[Emission]:
        """One token further in each of `slots`."""
        session = self._session
        session.set_active(list(slots))
        run_step(session)
        return [Emission(session.emitted(b)[0], session.path_hidden(b)[0].copy()) for b in slots]
