"""The largest sizes of a model that a description is believed to mean."""

from __future__ import annotations

from typing import Final

MAX_LAYERS: Final = 1024
MAX_HIDDEN: Final = 1 << 17
MAX_HEADS: Final = 4096
MAX_HEAD_SIZE: Final = 1024
MAX_FFN: Final = 1 << 20
MAX_VOCAB: Final = 1 << 22
MAX_POSITIONS: Final = 1 << 31
