"""The tokenizer of an opened model, through transformers; a GGUF file's is converted once."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files import cache_dir, scratch_beside
from ..files.gguf import GgufFile
from ..source import ModelSource
from .gguf import CONVERSION, convert_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The model's tokenizer with its chat template.

    From the model's directory, or from a GGUF file's metadata: converted, checked token for token
    against the file's own list, and kept in the user cache.

    It may have more tokens than the model has rows: only a prompt that uses one of them is refused.

    Raises ValueError naming the file if there is none or it is damaged, ImportError naming the
    packages that its kind needs.
    """
    from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

    tokenizer: PreTrainedTokenizerBase = (
        _from_directory(source.path) if source.gguf is None else _from_gguf(source.gguf)
    )
    if not isinstance(tokenizer.model_max_length, int | float):
        # transformers compares every text's length with it, only to warn.
        tokenizer.model_max_length = VERY_LARGE_INTEGER
    return tokenizer


def _from_directory(directory: Path) -> Any:
    from transformers import AutoTokenizer

    if (directory / "tokenizer.model").is_file() and not (directory / "tokenizer.json").is_file():
        _need_sentencepiece(directory / "tokenizer.model")
    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds, from several libraries
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise ValueError(
            f"{directory}: needs tokenizer files that transformers can read, got "
            f"{type(error).__name__}: {reason}"
        ) from error


def _need_sentencepiece(path: Path) -> None:
    missing = [
        package
        for package, module in (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf"))
        if not _is_installed(module)
    ]
    if missing:
        raise ImportError(
            f"{path}: reading it without a tokenizer.json needs {' and '.join(missing)}; install "
            "medusa-ext[sentencepiece]"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


def _from_gguf(file: GgufFile) -> Any:
    from transformers import PreTrainedTokenizerFast, __version__

    digest = hashlib.sha256(f"{CONVERSION} {__version__}".encode())
    digest.update(file.metadata_bytes())
    cached = cache_dir() / "tokenizers" / digest.hexdigest()[:32]
    if cached.is_dir():
        # A damaged cache entry is made anew below.
        with contextlib.suppress(Exception):
            return PreTrainedTokenizerFast.from_pretrained(cached)
        shutil.rmtree(cached, ignore_errors=True)
    tokenizer = convert_tokenizer(file)
    # Without a writable cache the conversion is repeated at the next load.
    with contextlib.suppress(OSError):
        _keep(tokenizer, cached)
    return tokenizer


def _keep(tokenizer: Any, target: Path) -> None:
    """Saves a converted tokenizer; two processes may do so at once, either's files will do."""
    with scratch_beside(target) as folder:
        made = folder / target.name
        tokenizer.save_pretrained(made)
        try:
            os.replace(made, target)
        except OSError:
            if not target.is_dir():
                raise
