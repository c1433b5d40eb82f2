"""Our own head format, version 3: a directory with config.json and medusa_lm_head.safetensors.

Tensors: `{h}.{l}.linear.weight` [H, H] and `.bias` [H]; `{h}.root.weight` [H, H] for kind "root";
optionally `lm_head.weight` (for all heads) or `{h}.lm_head.weight` [V', H]; `token_map` [V'] int32;
`rank_traces` [T, K] integers; `adapters.{canonical name}.down` [r, in] and `.up` [out, r]. With
storage "int8", matrices [R, C] are int8 with a float32 `<name>_scale` [R]. config.json: `version`
"3", `kind`, `medusa_num_heads`, `medusa_num_layers`, `hidden_size`, `storage`, and where known
`vocab_size`, `draft_vocab_size`, `base_model_name_or_path`, `base_fingerprint`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...files import json_text
from ..checks import Fields, failure
from ..types import STORAGES
from .dtypes import quantize_rows, read_matrix
from .files import HeadFiles

if TYPE_CHECKING:
    import torch

    from .checkpoint import HeadsCheckpoint

WEIGHTS_NAME: Final = "medusa_lm_head.safetensors"
KINDS: Final = ("medusa", "root")


def native_fields(
    files: HeadFiles,
    parts: dict[str, dict[tuple[int, ...], torch.Tensor]],
    num_heads: int,
    hidden: int,
) -> dict[str, Any]:
    """What only version 3 has: kind, root weights, rank traces, adapters; checked."""
    kind = Fields(files.config, files.config_where).text("kind", "medusa")
    if kind not in KINDS:
        raise failure(files.config_where, "kind", f"one of {KINDS}", kind)
    root = parts["root"]
    expected = {(h,) for h in range(num_heads)} if kind == "root" else set()
    if set(root) != expected:
        need = f"{len(expected)} root weights for kind {kind!r}"
        raise failure(files.where, "tensors", need, sorted(h for (h,) in root))
    for (h,), weight in root.items():
        if tuple(weight.shape) != (hidden, hidden):
            need = f"shape {[hidden, hidden]}"
            raise failure(files.where, f"{h}.root.weight", need, list(weight.shape))
    return {
        "kind": kind,
        "root_weights": tuple(root[(h,)] for h in range(num_heads)) if root else None,
        "rank_traces": _traces(files, parts["trace"].get(()), num_heads),
        "adapters": _adapters(files),
    }


def _traces(files: HeadFiles, found: torch.Tensor | None, num_heads: int) -> torch.Tensor | None:
    if found is None:
        return None
    if found.dim() != 2 or found.shape[1] != num_heads or found.is_floating_point():
        need = f"integers of shape [positions, {num_heads}]"
        raise failure(files.where, "rank_traces", need, (str(found.dtype), list(found.shape)))
    return found


def _adapters(files: HeadFiles) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Low-rank changes of the base by canonical weight name, as (down [r, in], up [out, r])."""
    names = {n[len("adapters.") :].rsplit(".", 1)[0] for n in files.tensors if _is_adapter(n)}
    adapters = {}
    for name in sorted(names):
        stored = [f"adapters.{name}.{side}" for side in ("down", "up")]
        missing = [n for n in stored if n not in files.tensors]
        if missing:
            raise failure(files.where, f"adapter of {name}", f"a tensor {missing[0]!r}", None)
        down, up = (read_matrix(files, n) for n in stored)
        if down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1]:
            need = "down [r, in] and up [out, r] of one rank r"
            got = [list(down.shape), list(up.shape)]
            raise failure(files.where, f"adapter of {name}", need, got)
        adapters[name] = (down, up)
    return adapters


def _is_adapter(name: str) -> bool:
    return name.startswith("adapters.") and name.endswith((".down", ".up"))


def save_heads(heads: HeadsCheckpoint, out: str | Path, storage: str | None = None) -> Path:
    """Writes heads with everything they have as version 3 into the directory `out`.

    `storage` casts matrices to one of STORAGES; None keeps each tensor's type. Biases stay as
    they are. Returns the directory. Raises ValueError for an unknown storage.
    """
    if storage is not None and storage not in STORAGES:
        raise failure(out, "storage", f"one of {STORAGES}", storage)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in heads.tensors():
        parts = name.split(".")
        if parts[-1] in ("lm_head", "root"):
            stored = f"{name}.weight"
        else:
            stored = f"{parts[0]}.{parts[1]}.linear.{parts[2]}"
        _put(tensors, stored, tensor, storage)
    for name, (down, up) in heads.adapters.items():
        tensors[f"adapters.{name}.down"] = down.contiguous()
        tensors[f"adapters.{name}.up"] = up.contiguous()
    if heads.token_map is not None:
        tensors["token_map"] = heads.token_map.contiguous()
    if heads.rank_traces is not None:
        tensors["rank_traces"] = heads.rank_traces.contiguous()
    config: dict[str, Any] = {
        "version": "3",
        "kind": heads.kind,
        "storage": storage or str(heads.blocks[0][0].weight.dtype).removeprefix("torch."),
        "draft_vocab_size": None if heads.token_map is None else int(heads.token_map.shape[0]),
    }
    return write_heads_directory(heads, Path(out), tensors, config)


def _put(
    tensors: dict[str, torch.Tensor], name: str, tensor: torch.Tensor, storage: str | None
) -> None:
    """Adds a tensor in its storage type; int8 with its scales beside it."""
    import torch

    if storage is None or tensor.dim() < 2:
        tensors[name] = tensor.contiguous()
    elif storage == "int8":
        tensors[name], tensors[name + "_scale"] = quantize_rows(tensor)
    else:
        tensors[name] = tensor.to(getattr(torch, storage)).contiguous()


def write_heads_directory(
    heads: HeadsCheckpoint,
    out: Path,
    tensors: dict[str, torch.Tensor],
    config: dict[str, Any],
    weights_name: str = WEIGHTS_NAME,
) -> Path:
    """Writes tensors and config.json, the counts and what is known of the base added to it."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "medusa_num_heads": heads.num_heads,
        "medusa_num_layers": heads.num_layers,
        "hidden_size": heads.hidden_size,
        "vocab_size": heads.vocab_size,
        "base_model_name_or_path": heads.base_name,
        "base_fingerprint": heads.base_fingerprint,
    }
    known = {key: value for key, value in common.items() if value is not None}
    save_file(tensors, out / weights_name, metadata={"format": "pt"})
    text = json_text(known | config, indent=2)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
    return out
