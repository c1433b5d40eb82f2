"""The tokenizer in a GGUF file's metadata: cuts and merges as llama.cpp does, whatever version of
transformers wraps it."""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np
from tokenizers import AddedToken, Tokenizer, processors

from ..checks import Fields, failure
from ..files.gguf import GgufFile
from .byte_pairs import byte_pair_tokenizer
from .ends import SPELLINGS
from .pre_types import DEFAULT, PRE_TYPES, PreType
from .scored_pairs import scored_pair_tokenizer

_log = logging.getLogger("medusa_ext")

# The version of what `convert_tokenizer` makes; raised when that changes, for cached results.
CONVERSION: Final = 6

# Kinds of tokens in `tokenizer.ggml.token_type`.
_NORMAL: Final = 1
_UNKNOWN: Final = 2
_CONTROL: Final = 3
_USER_DEFINED: Final = 4
_BYTE: Final = 6

_SPECIAL: Final = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
# What a SentencePiece vocabulary has where its file does not say.
_SENTENCEPIECE_IDS: Final = {
    "unknown_token_id": (0,),
    "bos_token_id": (1,),
    "eos_token_id": (2,),
}


def convert_tokenizer(file: GgufFile) -> Any:
    """The file's tokenizer with its chat template.

    A start token comes first where llama.cpp adds one. No end token is ever added: what is
    tokenised here is continued.

    Raises ValueError naming the file if there is no tokenizer, or it is damaged or of a kind that
    is not supported.
    """
    from transformers import PreTrainedTokenizerFast

    fields = Fields(file.metadata, file.path, prefix="tokenizer.ggml.")
    tokens = _tokens(file)
    kinds = _kinds(file, tokens)
    named = _named_tokens(fields, tokens)
    try:
        backend, adds_start = _backend(fields, tokens, kinds, named.get("unk_token"))
    except ValueError:
        raise
    except Exception as error:  # the tokenizers library raises nothing more precise
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise ValueError(
            f"{file.path}: needs a tokenizer that can be converted, got "
            f"{type(error).__name__}: {reason}"
        ) from error
    _add_special_tokens(backend, tokens, kinds)
    if adds_start and "bos_token" in named:
        backend.post_processor = _starting_with(named["bos_token"], tokens)
    build: Any = PreTrainedTokenizerFast
    tokenizer = build(
        tokenizer_object=backend,
        chat_template=_chat_templates(file),
        clean_up_tokenization_spaces=False,
        **named,
    )
    _check_tokens(tokenizer, file, tokens, kinds)
    return tokenizer


def _tokens(file: GgufFile) -> list[str]:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise failure(file.path, "tokenizer.ggml.tokens", "a list of tokens", tokens)
    return [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]


def _kinds(file: GgufFile, tokens: list[str]) -> list[int]:
    """Each token's kind; normal where the file does not say, and control where a token is spelled
    as only an end is."""
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    if kinds is None:
        kinds = np.full(len(tokens), _NORMAL)
    if not isinstance(kinds, np.ndarray) or len(kinds) != len(tokens):
        raise failure(file.path, "tokenizer.ggml.token_type", f"{len(tokens)} numbers", kinds)
    return [
        _CONTROL if token in SPELLINGS else int(kind)
        for token, kind in zip(tokens, kinds, strict=True)
    ]


def _named_tokens(fields: Fields, tokens: list[str]) -> dict[str, str]:
    """The tokens that transformers knows by a name of its own."""
    known = _SENTENCEPIECE_IDS if fields.raw("model") == "llama" else {}
    named = {}
    for name, key in _SPECIAL.items():
        ids = fields.ids(key, len(tokens)) or known.get(key, ())
        if ids and ids[0] < len(tokens):
            named[name] = tokens[ids[0]]
    return named


def _backend(
    fields: Fields, tokens: list[str], kinds: list[int], unknown: str | None
) -> tuple[Tokenizer, bool]:
    """The bare tokenizer, and whether texts begin with a start token."""
    model = fields.text("model")
    if model == "llama":
        mergeable = [i for i, kind in enumerate(kinds) if kind in (_NORMAL, _USER_DEFINED)]
        adds_space = fields.flag("add_space_prefix", True)
        scores = _scores(fields, len(tokens))
        backend = scored_pair_tokenizer(tokens, scores, mergeable, unknown, adds_space)
        return backend, fields.flag("add_bos_token", True)
    if model not in ("gpt2", "gemma4"):
        need = "'llama' (SentencePiece), 'gpt2' or 'gemma4' (byte pairs)"
        raise fields.fail("model", need, model)
    pre = _pre_type(fields, "gemma4" if model == "gemma4" else fields.raw("pre"))
    starts = pre.always_starts or fields.flag("add_bos_token", pre.adds_start)
    return byte_pair_tokenizer(tokens, _merges(fields), pre), starts


def _pre_type(fields: Fields, name: Any) -> PreType:
    if isinstance(name, str) and name in PRE_TYPES:
        return PRE_TYPES[name]
    _log.warning(
        "%s: tokenizer.ggml.pre: %s; its text is cut in a default way, which may not be what the "
        "model was trained with",
        fields.where,
        "missing" if name is None else f"{name!r:.40} is unknown",
    )
    return DEFAULT


def _scores(fields: Fields, count: int) -> list[float]:
    scores = fields.raw("scores")
    if not isinstance(scores, np.ndarray) or len(scores) != count:
        raise fields.fail("scores", f"{count} numbers", scores)
    return [float(score) for score in scores]


def _merges(fields: Fields) -> list[tuple[str, str]]:
    merges = fields.raw("merges")
    if not isinstance(merges, list):
        raise fields.fail("merges", "a list of pairs", merges)
    pairs = []
    for merge in merges:
        # A first part that is a space itself stands before the space between them.
        middle = merge.find(" ", 1)
        if middle < 0:
            raise fields.fail("merges", "pairs with a space between them", merge)
        pairs.append((merge[:middle], merge[middle + 1 :]))
    return pairs


def _chat_templates(file: GgufFile) -> str | dict[str, str] | None:
    """The chat template, or where there are several, all by name."""
    plain = file.metadata.get("tokenizer.chat_template")
    names = file.metadata.get("tokenizer.chat_templates")
    named = {} if plain is None else {"default": plain}
    for name in names if isinstance(names, list) else ():
        named[name] = file.metadata.get(f"tokenizer.chat_template.{name}")
    for name, template in named.items():
        if not isinstance(template, str):
            what = f"tokenizer.chat_template.{name}"
            raise failure(file.path, what, "the text of a template", template)
    return named if named.keys() - {"default"} else named.get("default")


def _add_special_tokens(backend: Tokenizer, tokens: list[str], kinds: list[int]) -> None:
    """Tokens that are taken out of a text before it is cut: control tokens, which decoding leaves
    out, and those that a model's makers defined."""
    for wanted, special in (((_CONTROL, _UNKNOWN), True), ((_USER_DEFINED,), False)):
        found = [token for token, kind in zip(tokens, kinds, strict=True) if kind in wanted]
        added = [AddedToken(token, normalized=False, special=special) for token in found]
        (backend.add_special_tokens if special else backend.add_tokens)(added)


def _starting_with(start: str, tokens: list[str]) -> processors.PostProcessor:
    return processors.TemplateProcessing(
        single=[start, "$A"],
        pair=[start, "$A", start, "$B"],
        special_tokens=[(start, tokens.index(start))],
    )


def _check_tokens(tokenizer: Any, file: GgufFile, tokens: list[str], kinds: list[int]) -> None:
    """Every normal and control token of the file must have its id in the converted tokenizer."""
    converted = tokenizer.convert_ids_to_tokens(list(range(len(tokens))))
    for index, (token, got, kind) in enumerate(zip(tokens, converted, kinds, strict=True)):
        if got != token and kind in (_NORMAL, _CONTROL):
            what = f"token {index} after conversion"
            raise failure(file.path, what, repr(token), got)
