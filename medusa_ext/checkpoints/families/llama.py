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
        heads = {"q": config.num_query_heads, "k": config.num_kv_heads}
        count = heads.get(weight.removesuffix("_bias"))
        return halves_from_pairs(count) if in_gguf and count is not None else None


FAMILY = Llama()
