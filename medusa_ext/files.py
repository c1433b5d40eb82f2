"""Where files are kept and how they are written: the cache, files that are whole or absent, folders
that one run at a time writes to. And what the system's own files say of the processor."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from . import SETTINGS

_CACHE: Final = SETTINGS.cache


def cache_dir() -> Path:
    """The user cache: MEDUSA_CACHE, or `medusa_ext` under XDG_CACHE_HOME or ~/.cache, as they were
    when the package was imported. Absolute."""
    return _CACHE


@contextlib.contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """An empty folder on `target`'s file system, removed in the end: what is made there takes its
    place by a rename. Makes `target`'s own folder if need be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}-"
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=prefix, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write, which takes `target`'s place if nothing was raised.

    Whatever goes wrong, `target` holds either its old content or the new one, and nothing else
    stays. Each writer has a path of its own, so two processes may write one target at once. The
    file's mode is what the umask gives. Raises OSError naming `target` if it cannot be written, as
    on a full disk.
    """
    with naming(target), scratch_beside(target) as folder:
        made = folder / target.name
        yield made
        publish(made, target)


def publish(made: Path, target: Path) -> None:
    """Puts a finished file in `target`'s place for good: flushed to the disk, then renamed."""
    # Some writers, safetensors' among them, make files that only their owner can read.
    made.chmod(_new_file_mode(made.parent))
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(made, target)
    with contextlib.suppress(OSError):  # the rename itself, where the system can
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _new_file_mode(folder: Path) -> int:
    """The mode that the umask gives to a new file; the umask cannot be read without setting it."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode


def write_text(target: Path, text: str) -> None:
    """A text file, whole or not at all."""
    with whole_file(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """A JSON file, whole or not at all."""
    write_text(target, json_text(value, indent=2) + "\n")


def json_text(value: Any, **options: Any) -> str:
    """Strict JSON, in which a number that is not finite is null; options are json.dumps's."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What goes wrong with writing inside, as an OSError that names `path`."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error
    except Exception as error:
        from safetensors import SafetensorError

        # What safetensors' and torch's writers raise does not always say that the disk is full.
        if not isinstance(error, (SafetensorError, RuntimeError)):
            raise
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


@functools.cache
def processor_fields() -> Mapping[str, str]:
    """What /proc/cpuinfo says of the first processor; nothing where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def processor_name() -> str:
    """The processor's model, or at least its architecture."""
    return processor_fields().get("model name") or platform.processor() or platform.machine()
