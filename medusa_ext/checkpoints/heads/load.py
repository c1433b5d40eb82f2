"""Loads Medusa heads of every published layout into one form, and checks them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import Fields, failure
from ..source import open_source
from .checkpoint import HeadsCheckpoint, ResBlock
from .files import HeadFiles, open_head_files
from .layouts import COUNT_KEYS, Layout, detect_layout, read_parts
from .v3 import native_fields

if TYPE_CHECKING:
    import torch

    from ..config import ModelConfig


def load_heads(path: str | Path) -> HeadsCheckpoint:
    """Loads the heads in a directory or file, whatever their layout.

    Heads, layers and sizes are counted from the tensors; where a config disagrees, or biases are
    missing, the result's `warnings` say so. Pickled code is never run.

    Raises:
        OSError: nothing there, or not readable.
        ValueError: damaged, or no Medusa heads; the message names file, tensor, need and value.
    """
    files = open_head_files(Path(path))
    layout = detect_layout(files)
    parts = read_parts(files, layout)
    blocks = _assemble_blocks(files, layout, parts)
    hidden = int(blocks[0][0].weight.shape[0])
    lm_heads = _assemble_lm_heads(files, layout, parts, len(blocks), hidden)
    config = Fields(files.config, files.config_where)
    fingerprint = config.text("base_fingerprint", "") or None
    if layout.name == "v1.0":
        fingerprint = _own_base_fingerprint(files.where.parent)
    extras: dict[str, Any] = {}
    if layout.name == "v3":
        extras = native_fields(files, parts, len(blocks), hidden)
    return HeadsCheckpoint(
        path=Path(path),
        layout=layout.name,
        kind=extras.pop("kind", "medusa"),
        hidden_size=hidden,
        blocks=blocks,
        lm_heads=lm_heads,
        token_map=_token_map(files, layout, parts, lm_heads),
        base_name=config.text("base_model_name_or_path", "") or None,
        base_fingerprint=fingerprint,
        vocab_size=config.integer("vocab_size", 0, 1 << 22, 0) or None,
        merged=layout.name == "v1.0",
        warnings=tuple(_warnings(files, layout, blocks, hidden)),
        **extras,
    )


def check_against_base(
    heads: HeadsCheckpoint, config: ModelConfig, fingerprint: str | None = None
) -> list[str]:
    """Warnings about heads and base that may not belong together.

    Raises ValueError naming both if hidden size or vocabulary differ.
    """
    if heads.hidden_size != config.hidden_size:
        raise failure(
            heads.path,
            "hidden size of the heads",
            f"the base model's {config.hidden_size}",
            heads.hidden_size,
        )
    if heads.token_map is not None:
        largest = int(heads.token_map.max())
        if largest >= config.vocab_size:
            need = f"ids below the base model's vocabulary of {config.vocab_size}"
            raise failure(heads.path, "token map", need, largest)
    elif heads.lm_heads is not None and heads.lm_heads[0].shape[0] != config.vocab_size:
        raise failure(
            heads.path,
            "vocabulary of the heads",
            f"the base model's {config.vocab_size}",
            int(heads.lm_heads[0].shape[0]),
        )
    if fingerprint and heads.base_fingerprint and fingerprint != heads.base_fingerprint:
        return [
            f"{heads.path}: made for another base model (fingerprint {heads.base_fingerprint}, "
            f"this base has {fingerprint}); drafts may be accepted badly"
        ]
    return []


def _assemble_blocks(
    files: HeadFiles, layout: Layout, parts: dict[str, dict[tuple[int, ...], torch.Tensor]]
) -> tuple[tuple[ResBlock, ...], ...]:
    """The ResBlocks, complete and of one size. A single stored block of heads that have more is
    repeated: the reference implementation reuses one module, which safetensors stores once."""
    weights, biases = parts["weight"], parts["bias"]
    num_heads = 1 + max(h for h, _ in weights)
    hidden = next(iter(weights.values())).shape[-1]
    repeats = layout.repeats
    heads = []
    for h in range(num_heads):
        head = []
        for number in range(layout.num_layers):
            stored = 0 if repeats else number
            if (h, stored) not in weights:
                need = f"ResBlock {stored} of head {h} (of {num_heads})"
                raise failure(files.where, "tensors", need, f"{len(weights)} blocks without it")
            weight, bias = weights[h, stored], biases.get((h, stored))
            _check_shape(files, f"weight of block {stored} of head {h}", weight, (hidden, hidden))
            if bias is not None:
                _check_shape(files, f"bias of block {stored} of head {h}", bias, (hidden,))
            head.append(ResBlock(weight, bias))
        heads.append(tuple(head))
    return tuple(heads)


def _assemble_lm_heads(
    files: HeadFiles,
    layout: Layout,
    parts: dict[str, dict[tuple[int, ...], torch.Tensor]],
    num_heads: int,
    hidden: int,
) -> tuple[torch.Tensor, ...] | None:
    """One lm_head per head, or the shared one, or None; all of one size [V', H]."""
    found = parts["lm_head"]
    if not found:
        return None
    indices = [0] if layout.one_lm_head else list(range(num_heads))
    for h in indices:
        if (h,) not in found:
            have = sorted(key[0] for key in found)
            raise failure(files.where, "lm heads", f"one for head {h} (of {num_heads})", have)
    first = found[(0,)]
    for h in indices:
        _check_shape(files, f"lm_head of head {h}", found[(h,)], (first.shape[0], hidden))
    return tuple(found[(h,)] for h in indices)


def _check_shape(files: HeadFiles, what: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise failure(files.where, what, f"shape {list(shape)}", list(tensor.shape))


def _token_map(
    files: HeadFiles,
    layout: Layout,
    parts: dict[str, dict[tuple[int, ...], torch.Tensor]],
    lm_heads: tuple[torch.Tensor, ...] | None,
) -> torch.Tensor | None:
    """The draft vocabulary [V'] int32: distinct, non-negative, as long as the lm heads' rows."""
    import torch

    found = parts["token_map"].get(())
    if found is None:
        if layout.truncated and lm_heads is not None:
            need = f"a token_map for its truncated vocabulary of {layout.truncated}"
            raise failure(files.where, "tensors", need, None)
        return None
    if found.dim() != 1 or found.numel() == 0 or found.is_floating_point():
        need = "a vector of integer token ids"
        raise failure(files.where, "token map", need, (str(found.dtype), list(found.shape)))
    if lm_heads is not None and found.shape[0] != lm_heads[0].shape[0]:
        need = f"one id per row of the lm heads ({lm_heads[0].shape[0]})"
        raise failure(files.where, "token map", need, int(found.shape[0]))
    if int(found.min()) < 0 or int(found.max()) >= 1 << 31:
        got = (int(found.min()), int(found.max()))
        raise failure(files.where, "token map", "ids in [0, 2^31)", got)
    if torch.unique(found).numel() != found.numel():
        raise failure(files.where, "token map", "distinct ids", "repeated ones")
    return found.to(torch.int32)


def _warnings(
    files: HeadFiles, layout: Layout, blocks: tuple[tuple[ResBlock, ...], ...], hidden: int
) -> list[str]:
    """What the user should know: counts that the config states otherwise, missing biases, and
    heads that came with a base of their own."""
    warnings = list(layout.warnings)
    heads_key, layers_key = COUNT_KEYS.get(layout.name, ("medusa_num_heads", "medusa_num_layers"))
    stated = files.config | layout.config
    for name, counted in (
        (heads_key, len(blocks)),
        (layers_key, len(blocks[0])),
        ("hidden_size", hidden),
    ):
        value = stated.get(name)
        if value is not None and value != counted:
            warnings.append(
                f"{files.config_where}: {name} says {value!r}, the tensors have {counted}; "
                f"the tensors count"
            )
    if any(block.bias is None for head in blocks for block in head):
        warnings.append(
            f"{files.where}: ResBlocks without biases; some published conversions dropped them, "
            f"and such heads are accepted much less often than the original's"
        )
    if layout.name == "v1.0":
        warnings.append(
            f"{files.where}: the heads belong to the base model in the same directory; its weights "
            f"are not those of the original base"
        )
    return warnings


def _own_base_fingerprint(directory: Path) -> str | None:
    """The fingerprint of a merged model's base; None if it is not one this package loads."""
    try:
        return open_source(directory).fingerprint
    except (OSError, ValueError):
        return None
