"""From what the user names as heads to files: packaged heads, heads beside a model, paths, ids."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..checks import read_json
from ..names import HUB_ID, fetch_from_hub
from ..source import ModelSource
from .files import find_heads

# medusa_ext/data/heads/<model>/<name>/: heads in our own format that are part of the package;
# the name "default" is what "auto" takes.
PACKAGED_HEADS: Final = Path(__file__).parents[2] / "data" / "heads"


def resolve_heads(heads: str | Path | None, source: ModelSource) -> Path | None:
    """Where the heads for a model are; None for plain decoding.

    "auto": heads in the model's own directory (merged ones too), else the packaged ones made for
    this very base, else None. Otherwise a packaged name, a path, or a hub id.

    Raises OSError naming what was tried.
    """
    if heads is None:
        return None
    if heads == "auto":
        return _heads_of_directory(source) or _packaged(source).get("default")
    packaged = _packaged(source)
    if str(heads) in packaged:
        return packaged[str(heads)]
    path = Path(heads).expanduser()
    if path.exists():
        return path
    if isinstance(heads, str) and HUB_ID.fullmatch(heads):
        return fetch_from_hub(heads, ["*.safetensors"], ["*.pt", "*.bin"])
    known = ", ".join(repr(name) for name in packaged) or "none for this model"
    raise FileNotFoundError(
        f"heads {str(heads)!r}: needs a packaged name ({known}), an existing path, or a hub id "
        f"(owner/name), got none of these"
    )


def heads_without_base(heads: str | Path) -> Path:
    """Where heads are that are named without their base: an existing path, or a packaged name.

    A name that is neither is returned as a path. Raises ValueError if several bases have packaged
    heads of the name.
    """
    path = Path(heads).expanduser()
    if path.exists():
        return path
    found = [
        c.parent for c in PACKAGED_HEADS.glob("*/*/config.json") if c.parent.name == str(heads)
    ]
    if len(found) > 1:
        bases = ", ".join(sorted(folder.parent.name for folder in found))
        raise ValueError(
            f"heads {str(heads)!r}: needs a path, as {bases} all have some, got a name"
        )
    return found[0] if found else path


def _heads_of_directory(source: ModelSource) -> Path | None:
    if source.gguf is not None:
        return None
    if any(name.startswith(("medusa_head.", "medusa_heads.")) for name in source.tensors):
        return source.path
    return find_heads(source.path)


def _packaged(source: ModelSource) -> dict[str, Path]:
    """The packaged heads for this base, by name: those with its fingerprint in their config."""
    return {
        config.parent.name: config.parent
        for config in sorted(PACKAGED_HEADS.glob("*/*/config.json"))
        if read_json(config).get("base_fingerprint") == source.fingerprint
    }
