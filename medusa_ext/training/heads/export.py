"""Trained heads in the package's own format, version 3."""

from __future__ import annotations

from pathlib import Path

import torch

from ...checkpoints import ModelSource
from ...checkpoints.heads.checkpoint import HeadsCheckpoint, ResBlock
from ...checkpoints.heads.v3 import save_heads
from ...files import naming, publish, scratch_beside
from .trainer import Trainer


def checkpoint_of(trainer: Trainer, path: Path, source: ModelSource) -> HeadsCheckpoint:
    """The trained heads as the loader would present them."""
    heads, settings = trainer.heads, trainer.settings
    blocks = tuple(
        tuple(
            ResBlock(heads.weight[layer, k].detach().clone(), heads.bias[layer, k].detach().clone())
            for layer in range(settings.num_layers)
        )
        for k in range(settings.num_heads)
    )
    root = None
    if heads.root is not None:
        root = tuple(heads.root[k].detach().clone() for k in range(settings.num_heads))
    whole = trainer.vocabulary.size == source.config.vocab_size
    return HeadsCheckpoint(
        path=path,
        layout="v3",
        kind=settings.kind,
        hidden_size=source.config.hidden_size,
        blocks=blocks,
        lm_heads=None if trainer.lm_head is None else (trainer.lm_head.detach().clone(),),
        token_map=None if whole else torch.from_numpy(trainer.vocabulary.token_map),
        root_weights=root,
        base_name=trainer.data.manifest.model,
        base_fingerprint=source.fingerprint,
        vocab_size=source.config.vocab_size,
    )


def save_trained(trainer: Trainer, out: Path, source: ModelSource, storage: str) -> Path:
    """Writes the trained heads into the directory `out`, file by file whole or not at all."""
    return save_whole(checkpoint_of(trainer, out, source), out, storage)


def save_whole(heads: HeadsCheckpoint, out: Path, storage: str | None) -> Path:
    """`save_heads`, but never leaving half-written files in `out`.

    Raises OSError naming `out` if it cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with naming(out), scratch_beside(out) as folder:
        save_heads(heads, folder, storage)
        for written in sorted(folder.iterdir(), reverse=True):
            publish(written, out / written.name)
    return out
