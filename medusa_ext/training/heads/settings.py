"""What decides a training run, and presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from ...checkpoints.types import TORCH_DTYPES


@dataclass(frozen=True)
class TrainSettings:
    """Hyper-parameters; the learning rate falls by a cosine after a linear warm-up.

    batch: rows per step over all processes. vocabulary: draft tokens (None: all). head_weight:
    head k's loss counts head_weight ** k. own_lm_head: train one lm_head for all heads, starting
    from the base's rows. targets: "hard" (the answer's tokens) or "soft" (the base's own
    distributions at them). dtype: of the matrix products; "auto" takes the faster one.
    """

    kind: str = "root"
    num_heads: int = 4
    num_layers: int = 1
    epochs: float = 2.0
    batch: int = 1024
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    dropout: float = 0.0
    clip: float = 1.0
    head_weight: float = 0.8
    vocabulary: int | None = 8192
    own_lm_head: bool = False
    targets: str = "hard"
    seed: int = 0
    dtype: str = "auto"

    def __post_init__(self) -> None:
        positive = ("num_heads", "num_layers", "epochs", "batch", "learning_rate", "clip")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: needs a positive number, got {getattr(self, name)}")
        for name, choices in (
            ("kind", ("medusa", "root")),
            ("targets", ("hard", "soft")),
            ("dtype", ("auto", *TORCH_DTYPES)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: needs one of {choices}, got {getattr(self, name)!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: needs a number in [0, 1), got {self.dropout}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup: needs a share in [0, 1], got {self.warmup}")


# "reference" has the hyper-parameters of FasterDecoding/Medusa's stage 1: AdamW at 1e-3, cosine,
# warm-up 0.1, no weight decay, 5 heads over the full vocabulary, losses weighted by 0.8 ** k.
PRESETS: Final[dict[str, TrainSettings]] = {
    "root": TrainSettings(kind="root"),
    "medusa-1": TrainSettings(kind="medusa", learning_rate=3e-3),
    "reference": TrainSettings(
        kind="medusa",
        num_heads=5,
        epochs=2.0,
        batch=512,
        learning_rate=1e-3,
        warmup=0.1,
        weight_decay=0.0,
        vocabulary=None,
    ),
}


def preset(name: str, **changes: Any) -> TrainSettings:
    """A preset with some fields changed; those given as None are kept. Raises ValueError if there
    is no such preset."""
    if name not in PRESETS:
        raise ValueError(f"preset: needs one of {tuple(PRESETS)}, got {name!r}")
    return replace(PRESETS[name], **{k: v for k, v in changes.items() if v is not None})
