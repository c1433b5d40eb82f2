"""Files that are whole or absent, and the cache's place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medusa_ext.files import whole_file, write_text


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "a") as path:
            path.touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "a"
    write_text(target, "old")
    with pytest.raises(KeyError), whole_file(target) as path:
        path.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write: .*file/a"):
        write_text(tmp_path / "file" / "a", "text")


def test_the_cache_is_decided_once(tmp_path: Path) -> None:
    """A relative MEDUSA_CACHE means one folder, wherever the process goes and whatever it sets."""
    code = (
        "import os, medusa_ext\n"
        "os.chdir('/'); os.environ['MEDUSA_CACHE'] = '/elsewhere'\n"
        "from medusa_ext.files import cache_dir\n"
        "print(cache_dir())"
    )
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"MEDUSA_CACHE": "kept", "PYTHONPATH": root}
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == str(tmp_path / "kept")
