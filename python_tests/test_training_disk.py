"""A disk that fills: what is there stays whole, and the run goes on once there is room."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from models import tiny_heads
from training_data import distiller

from medusa_ext.checkpoints.heads.load import load_heads
from medusa_ext.training.data.shards import Manifest, read_shard
from medusa_ext.training.heads.export import save_whole


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: writing further fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_data(tmp_path: Path) -> None:
    whole = distiller(tmp_path / "whole").run(2600)
    sizes = [(tmp_path / "whole" / shard.name).stat().st_size for shard in whole.shards]
    with (
        largest_file(max(sizes) - 1),
        pytest.raises(OSError, match=r"round\d+.*safetensors: cannot write, .* MB are free"),
    ):
        distiller(tmp_path / "full").run(2600)
    left = Manifest.load(tmp_path / "full")
    assert left.tokens < whole.tokens
    names = {path.name for path in (tmp_path / "full").iterdir()}
    assert names == {"manifest.json", "prompts-0000.jsonl", *(s.name for s in left.shards)}
    for shard in left.shards:
        assert sum(len(each.answer) for each in read_shard(tmp_path / "full" / shard.name)) > 0
    assert distiller(tmp_path / "full").run(2600).shards == whole.shards


def test_heads(tmp_path: Path) -> None:
    heads = load_heads(tiny_heads("root"))
    save_whole(heads, tmp_path / "heads", None)
    path = tmp_path / "heads" / "medusa_lm_head.safetensors"
    before = path.read_bytes()
    with largest_file(len(before) // 2), pytest.raises(OSError, match="cannot write"):
        save_whole(heads, tmp_path / "heads", None)
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["heads"]
