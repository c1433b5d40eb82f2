"""The published layouts of Medusa heads: how each is told apart and how it names its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..checks import Fields, failure
from .files import HeadFiles

if TYPE_CHECKING:
    import torch

MAX_HEADS: Final = 64
MAX_LAYERS: Final = 64
PARTS: Final = ("weight", "bias", "lm_head", "token_map", "root", "trace")

# The names under which a layout's config states heads and layers.
COUNT_KEYS: Final = {
    "vllm": ("num_heads", "num_hidden_layers"),
    "modelopt": ("num_medusa_heads", "num_medusa_layers"),
}
# Prefixes that tools put before a layout's own names.
_PREFIXES: Final = {
    "vllm": ("medusa_heads.", ""),
    "modelopt": ("medusa_heads.",),
    "v1.0": ("medusa_head.",),
    "mlc": ("medusa_head.",),
    "v0.1": ("medusa.", "medusa_lm_head.", ""),
    "v2": ("medusa.", "medusa_lm_head.", ""),
    "v3": ("",),
}
_NUMBERED: Final = {
    "weight": r"(\d+)\.(\d+)\.linear\.weight",
    "bias": r"(\d+)\.(\d+)\.linear\.bias",
    "direct": r"(\d+)\.(\d+)\.weight",
    "token_map": r"token_map|token_id_remap",
}
_PATTERNS: Final[dict[str, dict[str, str]]] = {
    "vllm": {
        "weight": r"blocks\.(\d+)\.layers\.(\d+)\.weight",
        "bias": r"blocks\.(\d+)\.layers\.(\d+)\.bias",
        "lm_head": r"lm_heads\.(\d+)\.weight",
        "token_map": r"token_map",
    },
    "modelopt": {
        "weight": r"(\d+)\.(?:medusa_layers\.)?(\d+)\.linear\.weight",
        "bias": r"(\d+)\.(?:medusa_layers\.)?(\d+)\.linear\.bias",
        "direct": r"(\d+)\.(\d+)\.weight",
        "lm_head": r"(\d+)\.lm_head\.weight",
    },
    "v1.0": _NUMBERED,
    "mlc": _NUMBERED,
    "v0.1": _NUMBERED,
    "v2": _NUMBERED,
    "v3": {
        "weight": r"(\d+)\.(\d+)\.linear\.weight",
        "bias": r"(\d+)\.(\d+)\.linear\.bias",
        "root": r"(\d+)\.root\.weight",
        "lm_head": r"(\d+)\.lm_head\.weight",
        "shared": r"lm_head\.weight",
        "token_map": r"token_map",
        "trace": r"rank_traces",
    },
}


@dataclass(frozen=True)
class Layout:
    """A recognised layout: which tensor is which part, and what its config says.

    `names` maps a part to its tensors: (head, layer) or (head,) or () -> name in the file.
    `repeats`: heads have more layers than stored blocks, and the one block is applied each time.
    """

    name: str
    names: dict[str, dict[tuple[int, ...], str]]
    num_layers: int
    repeats: bool = False
    one_lm_head: bool = False
    truncated: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def detect_layout(files: HeadFiles) -> Layout:
    """The layout of an opened checkpoint, by the names of its tensors and its config.

    Raises ValueError naming the file if there are no Medusa heads in it.
    """
    name = _detect(files)
    names = _sort_names(files, name)
    if not names["weight"]:
        shown = ", ".join(sorted(files.tensors)[:5])
        raise failure(files.where, "tensors", "Medusa heads (ResBlock weights)", shown or "none")
    config = _heads_config(files, name)
    shared = "shared" in names
    if shared:
        if names["lm_head"]:
            need = "one lm_head for all heads, or one per head"
            raise failure(files.where, "tensors", need, "both")
        names["lm_head"] = {(0,): names.pop("shared")[()]}
    stored = 1 + max(layer for _, layer in names["weight"])
    num_layers, repeats, warnings = stored, False, _version_warnings(files, name)
    direct = names.pop("direct", {})
    if direct:
        num_layers = _layers_before_lm_head(files, direct)
        names["lm_head"] = {(h,): stored_name for (h, _), stored_name in direct.items()}
        repeats = stored == 1 and num_layers > 1
        if stored != num_layers and not repeats:
            need = f"ResBlocks 0 to {num_layers - 1} before the lm_head at {num_layers}"
            raise failure(files.where, "layers of the heads", need, stored)
        if repeats:
            warnings.append(
                f"{files.where}: one ResBlock per head is stored and {num_layers} are applied: "
                f"it is applied {num_layers} times"
            )
    return Layout(
        name,
        names,
        num_layers,
        repeats,
        one_lm_head=shared or (name == "vllm" and config.flag("original_lm_head", False)),
        truncated=_truncated(config, name),
        config=_stated_counts(files, name),
        warnings=tuple(warnings),
    )


def _detect(files: HeadFiles) -> str:
    names = list(files.tensors)
    config = files.config
    if config.get("architectures") == ["MedusaModel"] or any(
        re.match(r"(medusa_heads\.)?blocks\.\d+\.", n) for n in names
    ):
        return "vllm"
    if any(n.startswith("medusa_heads.") for n in names):
        return "modelopt"
    if any(n.startswith("medusa_head.") for n in names):
        return "mlc" if all(n.startswith("medusa_head.") for n in names) else "v1.0"
    if _version(files) == 3:
        return "v3"
    direct = re.compile(r"(medusa\.|medusa_lm_head\.)?\d+\.\d+\.weight")
    return "v0.1" if any(direct.fullmatch(n) for n in names) else "v2"


def _version(files: HeadFiles) -> float:
    """The config's `version`: a string in some projects, a number in others; absent means 1."""
    value = files.config.get("version", 1)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise failure(files.config_where, "version", "a number", value) from error


def _version_warnings(files: HeadFiles, name: str) -> list[str]:
    version = _version(files) if "version" in files.config else 0
    expected = {"v0.1": 1, "v2": 2}.get(name)
    if version in (1, 2, 3) and expected is not None and version != expected:
        found = "with" if name == "v0.1" else "without"
        return [
            f"{files.config_where}: version says {files.config['version']!r}, the heads come "
            f"{found} lm heads of their own; the tensors count"
        ]
    return []


def _sort_names(files: HeadFiles, name: str) -> dict[str, dict[tuple[int, ...], str]]:
    """Each tensor's part and indices; names that belong to no part are left alone."""
    patterns = {part: re.compile(p) for part, p in _PATTERNS[name].items()}
    names: dict[str, dict[tuple[int, ...], str]] = {part: {} for part in PARTS}
    for full in files.tensors:
        for prefix in _PREFIXES[name]:
            if full.startswith(prefix):
                short = full[len(prefix) :]
                break
        else:
            short = full if full in ("token_id_remap", "token_map") else ""
        for part, pattern in patterns.items():
            match = pattern.fullmatch(short)
            if match is None:
                continue
            indices = tuple(int(group) for group in match.groups())
            _check_indices(files, full, indices)
            if indices in names.setdefault(part, {}):
                need = "one tensor for this part"
                raise failure(files.where, full, need, names[part][indices])
            names[part][indices] = full
    return names


def _check_indices(files: HeadFiles, name: str, indices: tuple[int, ...]) -> None:
    limits = (MAX_HEADS, MAX_LAYERS)
    for index, limit in zip(indices, limits, strict=False):
        if index > limit:
            need = f"head and layer numbers up to {limit}"
            raise failure(files.where, f"tensor {name!r}", need, index)


def _layers_before_lm_head(files: HeadFiles, direct: dict[tuple[int, ...], str]) -> int:
    """The number of ResBlocks per head: the lm_head's index, the same in every head."""
    layers = sorted({layer for _, layer in direct})
    if len(layers) != 1 or layers[0] < 1:
        need = "each head's lm_head at the same index, after its ResBlocks"
        raise failure(files.where, "lm heads", need, sorted(direct.values())[:4])
    return layers[0]


def _heads_config(files: HeadFiles, name: str) -> Fields:
    """The part of the config that describes the heads (ModelOpt nests it)."""
    fields = Fields(files.config, files.config_where)
    nested = fields.group("medusa") if name == "modelopt" else None
    return fields if nested is None else nested


def _stated_counts(files: HeadFiles, name: str) -> dict[str, Any]:
    nested = files.config.get("medusa") if name == "modelopt" else None
    return nested if isinstance(nested, dict) else {}


def _truncated(config: Fields, name: str) -> int:
    """vLLM's truncated vocabulary: 0 if it has none."""
    if name != "vllm":
        return 0
    scale = config.number("logit_scale", -1e9, 1e9, 1.0)
    if scale <= 0:
        raise config.fail("logit_scale", "a positive number", scale)
    truncated = config.integer("truncated_vocab_size", 0, 1 << 22, 0)
    whole = config.integer("vocab_size", 0, 1 << 22, 0)
    return 0 if truncated == whole else truncated


def read_parts(files: HeadFiles, layout: Layout) -> dict[str, dict[tuple[int, ...], torch.Tensor]]:
    """The tensors of each part, 8-bit formats dequantised; see `heads_dtypes`."""
    from .dtypes import read_matrix

    skip = ("token_map", "trace")
    return {
        part: {
            key: files.tensors[name] if part in skip else read_matrix(files, name)
            for key, name in named.items()
        }
        for part, named in layout.names.items()
    }
