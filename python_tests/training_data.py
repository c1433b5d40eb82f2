"""What the training tests share: a tiny model's distilled data, made once."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from models import tiny_directory

from medusa_ext.checkpoints import open_source
from medusa_ext.checkpoints.tokenizer.load import load_tokenizer
from medusa_ext.training.data.distill import Distiller, DistillSettings, open_run
from medusa_ext.training.data.prompts import Exclusion, Prompt
from medusa_ext.training.data.shards import Manifest
from medusa_ext.training.data.torch_backend import TorchBackend
from medusa_ext.training.decoder import Decoder
from medusa_ext.training.torch_weights import TorchWeights

SETTINGS = DistillSettings(
    seed=3, max_new_tokens=24, max_prompt_tokens=120, self_share=0.0, temperature_share=0.25
)


def torch_backend(directory: Path, batch: int = 6, max_length: int = 160) -> TorchBackend:
    """A float32 backend for a directory's model."""
    weights = TorchWeights(open_source(directory), torch.float32)
    return TorchBackend(Decoder(weights, max_length), batch, max_length)


def distiller(
    folder: Path,
    settings: DistillSettings = SETTINGS,
    prompts: tuple[Prompt, ...] = (),
    exclusion: Exclusion | None = None,
    batch: int = 6,
) -> Distiller:
    """A run of the tiny Llama into `folder`, through torch."""
    source = open_source(tiny_directory())
    fresh = Manifest(
        model=str(tiny_directory()),
        fingerprint=source.fingerprint,
        hidden_size=source.config.hidden_size,
        vocab_size=source.config.vocab_size,
        eos_ids=list(source.config.eos_ids),
        settings=asdict(settings),
    )
    manifest = open_run(folder, fresh, settings)
    backend = torch_backend(tiny_directory(), batch)
    tokenizer = load_tokenizer(source)
    return Distiller(
        folder, manifest, settings, backend, tokenizer, exclusion or Exclusion(), list(prompts)
    )


@functools.cache
def tiny_data(tokens: int = 3000) -> Path:
    """A directory with at least `tokens` answer tokens of the tiny Llama."""
    folder = Path(tempfile.mkdtemp(prefix="medusa-training-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    distiller(folder).run(tokens)
    return folder
