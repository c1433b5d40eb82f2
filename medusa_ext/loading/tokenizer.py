"""The tokenizer of an opened model, through transformers; a GGUF file's is converted once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .checks import failure
from .gguf_file import GgufFile
from .resolve import cache_dir
from .source import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONVERSION: Final = 2  # raised whenever `_convert` changes, so that cached results are made anew
_NORMAL: Final = 1
_CONTROL: Final = 3

# `tokenizer.ggml.pre` of models whose text is cut at every digit before GPT-2's expression
# applies; transformers converts them with that expression alone, which joins the spaces before a
# number differently.
_SINGLE_DIGITS: Final = ("smollm", "starcoder", "refact", "command-r")


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The model's tokenizer with its chat template.

    From the model's directory, or from a GGUF file's metadata: converted by transformers, checked
    token for token against the file's own list, and kept in the user cache.

    Raises ValueError naming the file if there is none or it does not fit the model.
    """
    tokenizer: PreTrainedTokenizerBase = (
        _from_directory(source.path) if source.gguf is None else _from_gguf(source.gguf)
    )
    if len(tokenizer) > source.config.vocab_size:
        need = f"at most the model's vocabulary of {source.config.vocab_size}"
        raise failure(source.path, "tokenizer size", need, len(tokenizer))
    return tokenizer


def _from_directory(directory: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds, from several libraries
        raise ValueError(
            f"{directory}: needs tokenizer files that transformers can read, got "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error


def _from_gguf(file: GgufFile) -> Any:
    from transformers import PreTrainedTokenizerFast, __version__

    digest = hashlib.sha256(f"{_CONVERSION} {__version__}".encode())
    digest.update(file.metadata_bytes())
    cached = cache_dir() / "tokenizers" / digest.hexdigest()[:32]
    if cached.is_dir():
        # A damaged cache entry is made anew below.
        with contextlib.suppress(Exception):
            return PreTrainedTokenizerFast.from_pretrained(cached)
        shutil.rmtree(cached, ignore_errors=True)
    tokenizer = _convert(file)
    _check_tokens(tokenizer, file)
    # Without a writable cache the conversion is repeated at the next load.
    with contextlib.suppress(OSError):
        _keep(tokenizer, cached)
    return tokenizer


def _convert(file: GgufFile) -> Any:
    from transformers import AutoTokenizer

    if not isinstance(file.metadata.get("tokenizer.ggml.tokens"), list):
        need = "the tokenizer's list of tokens"
        raise failure(file.path, "tokenizer.ggml.tokens", need, None)
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.path.parent, gguf_file=file.path.name)
    except Exception as error:
        raise ValueError(
            f"{file.path}: needs a tokenizer that transformers can convert, got "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error
    if file.metadata.get("tokenizer.ggml.pre") in _SINGLE_DIGITS:
        from tokenizers import pre_tokenizers

        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    return _without_additions(tokenizer, len(file.metadata["tokenizer.ggml.tokens"]))


def _without_additions(tokenizer: Any, num_tokens: int) -> Any:
    """The tokenizer without tokens beyond the file's own: transformers adds its class's default
    special tokens where a vocabulary lacks them, under ids that the model has no rows for."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {t["content"] for t in state["added_tokens"] if t["id"] >= num_tokens}
    state["added_tokens"] = [t for t in state["added_tokens"] if t["id"] < num_tokens]
    if state["model"].get("unk_token") in added:
        state["model"]["unk_token"] = None
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = {name: getattr(tokenizer, name) for name in names}
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in special.items() if token and token not in added},
    )


def _check_tokens(tokenizer: Any, file: GgufFile) -> None:
    """Every normal and control token of the file must have its id in the converted tokenizer."""
    tokens = file.metadata["tokenizer.ggml.tokens"]
    kinds = file.metadata.get("tokenizer.ggml.token_type", np.ones(len(tokens), np.int32))
    if not isinstance(kinds, np.ndarray) or len(kinds) != len(tokens):
        raise failure(file.path, "tokenizer.ggml.token_type", f"{len(tokens)} numbers", kinds)
    converted = tokenizer.convert_ids_to_tokens(list(range(len(tokens))))
    for index, (token, got, kind) in enumerate(zip(tokens, converted, kinds, strict=True)):
        if got != token and (kind == _NORMAL or (kind == _CONTROL and token.isascii())):
            raise failure(
                file.path, f"token {index} after conversion by transformers", repr(token), got
            )


def _keep(tokenizer: Any, target: Path) -> None:
    """Saves a converted tokenizer; two processes may do so at once, either's files will do."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=".convert-"))
    try:
        tokenizer.save_pretrained(folder)
        os.replace(folder, target)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        if not target.is_dir():
            raise


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
