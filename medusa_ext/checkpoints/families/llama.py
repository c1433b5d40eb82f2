"""Llama, and the many models published under its name (SmolLM2 among them)."""

from __future__ import annotations

from ..config import ModelConfig
from ..transforms import Transform, halves_from_pairs
from .family import Family


class Llama(Family):
    """Every family's default; GGUF files also hold Mistral models under this name."""

    name = "llama"
    gguf_name = "llama"

    def transform(self, config: ModelConfig, weight: str, *, in_gguf: bool) -> Transform | None:
        """GGUF files store q and k with each head's rows interleaved for adjacent-pair rotation."""
        return halves_from_pairs(config, weight) if in_gguf else None


FAMILY = Llama()
