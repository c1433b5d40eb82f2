"""Files that are whole or absent: written beside their place, flushed to the disk, renamed.

And folders that one run at a time writes to.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Calls write(temporary path), then puts the result in `path`'s place.

    Whatever goes wrong, `path` holds either its old content or the new one, and no temporary file
    stays. Raises OSError naming `path` if it cannot be written, as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            # Some writers, safetensors' among them, make files that only their owner can read.
            temporary.touch()
            mode = temporary.stat().st_mode & 0o777
            write(temporary)
            temporary.chmod(mode)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What goes wrong with writing inside, as an OSError that names `path`."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error
    except (SafetensorError, RuntimeError) as error:  # safetensors' and torch's writers
        # Theirs do not always say that the disk is full.
        free = shutil.disk_usage(path.parent).free / 1e6
        raise OSError(f"{path}: cannot write, {free:.0f} MB are free: {error}") from error


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds a folder, made if need be, for this run alone; the system lets go when the run dies.

    The lock is on the folder itself, so no file is left in it. Where a file system has no locks
    (some network ones) the run goes on without. Raises OSError naming the folder if another run
    writes to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(
                f"{folder}: needs to be written by one run at a time, got a second one; wait for "
                "the other, or name another directory"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    write_atomic(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """A JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
