"""A model's weights under canonical names, checked as a whole before the first is handed out."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from .files.weight import NATIVE_DTYPES, WeightTensor
from .plan import PlannedWeight
from .source import ModelSource

_log = logging.getLogger("medusa_ext")


def iter_weights(
    source: ModelSource, *, progress: bool = False
) -> Iterator[tuple[str, WeightTensor]]:
    """Yields (canonical name, weight), one at a time, in the order of the forward pass.

    Names: `embed`; `layers.{i}.` with attn_norm, q, k, v, q_bias, k_bias, v_bias, q_norm, k_norm,
    o, attn_post_norm, ffn_norm, gate, up, down, ffn_post_norm; `final_norm`; `lm_head` (absent when
    tied). Biases and norms only where the model has them. Matrices are [out, in]. Rows of q and k
    are in the order for rotation of halves, whatever the file's.

    All names and shapes are checked before the first weight is yielded; see `ModelSource.plan`.
    `progress` shows a bar on standard error.
    """
    plan = source.plan
    _notice_conversions(source)
    items: Iterator[PlannedWeight] = iter(plan)
    if progress:
        from tqdm import tqdm

        items = iter(tqdm(plan, desc="loading weights", unit="tensor", leave=False))
    for item in items:
        yield item.canonical, item.of(source.tensors)


def _notice_conversions(source: ModelSource) -> None:
    """One notice for all the weights whose format is not taken as it is."""
    formats = [source.tensors[item.file_name].storage for item in source.plan]
    foreign = {f: formats.count(f) for f in sorted(set(formats) - set(NATIVE_DTYPES))}
    if foreign:
        listed = ", ".join(f"{count} of {name}" for name, count in foreign.items())
        _log.warning("%s: tensors dequantised to 16 bits: %s", source.path, listed)
