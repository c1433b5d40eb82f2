"""Whether heads belong to their base, by what they guess: shapes alone cannot show it."""

from __future__ import annotations

from typing import Final

import numpy as np

from .model import Model
from .step import run_step

# Heads of a base guess a third of such tokens or more; those of another base hardly any.
LOW_ACCURACY: Final = 0.1
_TEXTS: Final = (
    "Once upon a time, in a small village by the sea,",
    "The water cycle describes how",
    "def fibonacci(n):\n",
    "To make a good cup of tea, first",
)
_TOKENS: Final = 16


def first_head_accuracy(model: Model) -> float:
    """The share of tokens that the first head's best guess gets right in a short greedy run.

    1.0 for a model whose context has no room for the run.
    """
    limit = model.config.max_position_embeddings
    prompts = [np.array(model.tokenizer.encode(text), dtype=np.int32) for text in _TEXTS]
    prompts = [ids for ids in prompts if 0 < len(ids) <= limit - _TOKENS]
    if model.heads is None or not prompts:
        return 1.0
    length = max(map(len, prompts)) + _TOKENS
    session = model.session(len(prompts), length, max_nodes=1).native
    for b, ids in enumerate(prompts):
        session.prefill(b, ids)
    right = 0
    for _ in range(_TOKENS):
        guesses, _ = session.head_candidates(model.heads, 1)
        run_step(session)
        right += sum(session.emitted(b)[0] == guesses[b, 0, 0] for b in range(len(prompts)))
    return right / (_TOKENS * len(prompts))
