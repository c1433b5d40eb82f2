"""From a name and options to a loaded model: what `medusa_ext.load` does once they are checked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints import (
    check_against_base,
    load_heads,
    load_tokenizer,
    open_source,
    packing,
    resolve_heads,
    resolve_model,
)
from ..checkpoints.tokenizer.ends import end_ids
from ..drafting.trees import NestedTrees, default_trees, nested_from_traces
from .device import place
from .model import Model

if TYPE_CHECKING:
    from ..checkpoints import ModelSource
    from ..checkpoints.heads.checkpoint import HeadsCheckpoint

_log = logging.getLogger("medusa_ext")


def load_model(
    model: str | Path,
    heads: str | Path | None,
    device: str,
    dtype: str,
    kv_dtype: str,
    *,
    deterministic: bool,
    progress: bool,
) -> Model:
    """Loads a model and its heads; arguments and errors are those of `medusa_ext.load`."""
    source = open_source(resolve_model(model))
    checkpoint = _load_heads(heads, source)
    tokenizer = load_tokenizer(source)
    placement = place(device, dtype, kv_dtype, source.config.head_size)
    formats = packing.choose_formats(source, placement.dtype)
    adapters = checkpoint.adapters if checkpoint is not None else None
    if checkpoint is not None and adapters:
        _log.warning("%s: its adapters change the base model's weights", checkpoint.path)
    native = packing.build_model(
        source,
        formats,
        placement.device,
        adapters=adapters,
        deterministic=deterministic,
        progress=progress,
    )
    native_heads, trees, calibrated = None, None, False
    if checkpoint is not None:
        native_heads = packing.build_heads(native, checkpoint, source, placement.dtype)
        trees, calibrated = _trees_of(checkpoint)
    loaded = Model(
        name=str(model),
        config=source.config,
        native=native,
        tokenizer=tokenizer,
        fingerprint=source.fingerprint,
        heads=native_heads,
        head_trees=trees,
        calibrated=calibrated,
        device=placement.device,
        kv_dtype=placement.kv_dtype,
        eos_ids=end_ids(source, tokenizer),
    )
    if checkpoint is not None and checkpoint.base_fingerprint != source.fingerprint:
        _warn_of_bad_guesses(loaded, checkpoint)
    return loaded


def _load_heads(heads: str | Path | None, source: ModelSource) -> HeadsCheckpoint | None:
    path = resolve_heads(heads, source)
    if path is None:
        return None
    checkpoint = load_heads(path)
    warnings = check_against_base(checkpoint, source.config, source.fingerprint)
    for warning in (*checkpoint.warnings, *warnings):
        _log.warning("%s", warning)
    return checkpoint


def _warn_of_bad_guesses(model: Model, checkpoint: HeadsCheckpoint) -> None:
    """For heads whose files do not say that they are this base's: a short run tells."""
    from .heads_check import LOW_ACCURACY, first_head_accuracy

    accuracy = first_head_accuracy(model)
    if accuracy < LOW_ACCURACY:
        _log.warning(
            "%s: head 1 guesses %.0f %% of the tokens of a short greedy run; heads made for %s "
            "would guess more, so drafts may be accepted badly",
            checkpoint.path,
            100 * accuracy,
            model.name,
        )


def _trees_of(checkpoint: HeadsCheckpoint) -> tuple[NestedTrees, bool]:
    """The heads' trees: from their calibration if they bring one."""
    if checkpoint.rank_traces is None:
        return default_trees(checkpoint.num_heads), False
    return nested_from_traces(checkpoint.rank_traces.numpy()), True
