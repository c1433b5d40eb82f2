"""The tokenizer in a GGUF file's metadata as a transformers tokenizer, checked token for token."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from ..checks import Fields, failure
from ..files.gguf import GgufFile

# The version of what `convert_tokenizer` makes; raised when that changes, for cached results.
CONVERSION: Final = 3

_NORMAL: Final = 1
_CONTROL: Final = 3
_USER_DEFINED: Final = 4

# `tokenizer.ggml.pre` of byte-level vocabularies built here: whether text is cut at every digit
# before GPT-2's expression applies. transformers knows that expression alone, which joins the
# spaces before a number otherwise than these models were trained with; it also takes seconds.
_BYTE_LEVEL: Final = {
    "gpt-2": False,
    "smollm": True,
    "starcoder": True,
    "refact": True,
    "command-r": True,
}
_SPECIAL: Final = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def convert_tokenizer(file: GgufFile) -> Any:
    """The file's tokenizer with its chat template.

    Raises ValueError naming the file if there is none, it is damaged, or it cannot be converted.
    """
    tokens = _tokens(file)
    pre = file.metadata.get("tokenizer.ggml.pre")
    byte_level = file.metadata.get("tokenizer.ggml.model") == "gpt2" and pre in _BYTE_LEVEL
    try:
        if byte_level:
            tokenizer = _byte_level(file, tokens, _BYTE_LEVEL[str(pre)])
        else:
            tokenizer = _through_transformers(file, len(tokens))
    except Exception as error:  # several libraries, each with kinds of its own
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise ValueError(
            f"{file.path}: needs a tokenizer that can be converted, got "
            f"{type(error).__name__}: {reason}"
        ) from error
    _check_tokens(tokenizer, file, tokens)
    return tokenizer


def _tokens(file: GgufFile) -> list[str]:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise failure(file.path, "tokenizer.ggml.tokens", "a list of tokens", tokens)
    return tokens


def _kinds(file: GgufFile, count: int) -> list[int]:
    """Each token's kind; all normal where the file does not say."""
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    if kinds is None:
        return [_NORMAL] * count
    if not isinstance(kinds, np.ndarray) or len(kinds) != count:
        raise failure(file.path, "tokenizer.ggml.token_type", f"{count} numbers", kinds)
    return [int(kind) for kind in kinds]


def _byte_level(file: GgufFile, tokens: list[str], single_digits: bool) -> Any:
    """A byte-level BPE tokenizer of the file's tokens and merges."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
    )
    from transformers import PreTrainedTokenizerFast

    merges = [tuple(m.split(" ")) for m in file.metadata.get("tokenizer.ggml.merges", [])]
    vocab = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words] if single_digits else [words])
    backend.decoder = decoders.ByteLevel()
    kinds = _kinds(file, len(tokens))
    for wanted, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        found = [t for t, kind in zip(tokens, kinds, strict=True) if kind == wanted]
        added = [AddedToken(t, normalized=False, special=special) for t in found]
        (backend.add_special_tokens if special else backend.add_tokens)(added)
    fields = Fields(file.metadata, file.path, prefix="tokenizer.ggml.")
    named = {
        name: tokens[fields.integer(key, 0, len(tokens) - 1)]
        for name, key in _SPECIAL.items()
        if key in fields
    }
    if fields.flag("add_bos_token", False) and "bos_token" in named:
        start = named["bos_token"]
        template = processors.TemplateProcessing(
            single=f"{start} $A",
            pair=f"{start} $A {start} $B",
            special_tokens=[(start, vocab[start])],
        )
        backend.post_processor = template
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=backend,
        chat_template=file.metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **named,
    )


def _through_transformers(file: GgufFile, num_tokens: int) -> Any:
    """Converted by transformers, without the tokens that it adds beyond the file's own: its
    class's default special tokens, under ids that the model has no rows for."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = AutoTokenizer.from_pretrained(file.path.parent, gguf_file=file.path.name)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {t["content"] for t in state["added_tokens"] if t["id"] >= num_tokens}
    state["added_tokens"] = [t for t in state["added_tokens"] if t["id"] < num_tokens]
    if state["model"].get("unk_token") in added:
        state["model"]["unk_token"] = None
    special = {name: getattr(tokenizer, name) for name in _SPECIAL}
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in special.items() if token and token not in added},
    )


def _check_tokens(tokenizer: Any, file: GgufFile, tokens: list[str]) -> None:
    """Every normal and control token of the file must have its id in the converted tokenizer."""
    kinds = _kinds(file, len(tokens))
    converted = tokenizer.convert_ids_to_tokens(list(range(len(tokens))))
    for index, (token, got, kind) in enumerate(zip(tokens, converted, kinds, strict=True)):
        if got != token and (kind == _NORMAL or (kind == _CONTROL and token.isascii())):
            what = f"token {index} after conversion"
            raise failure(file.path, what, repr(token), got)
