"""Prompts in every accepted form, turned into token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .chat import Message, chat_arguments, check_unicode, encode_chat

Prompt = str | Sequence[int] | Sequence[Message] | Mapping[str, Any]


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of a prompt. `whole`: they are the entire conversation from its first token on (a
    rendered chat), not what follows the text a session already holds."""

    tokens: tuple[int, ...]
    whole: bool


def split_batch(prompt: Any) -> tuple[list[Any], bool]:
    """The prompts of a batch, and whether it was one (a list of prompts, not a single prompt).

    Raises TypeError or ValueError naming the argument for anything that is no prompt.
    """
    if isinstance(prompt, str | Mapping):
        return [prompt], False
    if isinstance(prompt, np.ndarray) and prompt.ndim == 1:
        prompt = prompt.tolist()
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise TypeError(
            "prompt: needs a string, a list of token ids, a list of chat messages or a list of "
            f"these, got {type(prompt).__name__}"
        )
    if not prompt:
        raise ValueError("prompt: needs at least one token, got an empty list")
    if all(_is_id(item) for item in prompt) or all(_is_message(item) for item in prompt):
        return [prompt], False
    if all(isinstance(i, str | Sequence | np.ndarray) or _is_conversation(i) for i in prompt):
        return list(prompt), True
    kinds = sorted({type(item).__name__ for item in prompt})
    raise TypeError(f"prompt: needs items of one kind, got {', '.join(kinds)}")


def encode(tokenizer: Any, vocab_size: int, prompt: Any, continues: bool) -> EncodedPrompt:
    """The token ids of one prompt.

    Raw text is tokenised as the tokenizer does by itself: control tokens written in it count as
    such, and a start token is added, unless the text `continues` what a session holds. In the
    content of chat messages control tokens are only text.

    Raises TypeError or ValueError naming the argument, what it needs and what it got.
    """
    if isinstance(prompt, str):
        if not prompt:
            raise ValueError("prompt: needs at least one token, got an empty string")
        check_unicode(prompt, "prompt")
        ids = tokenizer.encode(prompt, add_special_tokens=not continues)
        return _checked(ids, vocab_size, whole=False)
    if isinstance(prompt, np.ndarray) and prompt.ndim == 1:
        prompt = prompt.tolist()
    if isinstance(prompt, Mapping):
        ids = encode_chat(tokenizer, **chat_arguments(prompt))
        return _checked(ids, vocab_size, whole=True)
    if not isinstance(prompt, Sequence) or not prompt:
        raise ValueError(f"prompt: needs at least one token, got {prompt!r}")
    if all(isinstance(item, Mapping) for item in prompt):
        return _checked(encode_chat(tokenizer, prompt), vocab_size, whole=True)
    if not all(_is_id(item) for item in prompt):
        raise TypeError(f"prompt: needs token ids or chat messages, got {prompt!r:.120}")
    return _checked([int(item) for item in prompt], vocab_size, whole=False)


def _is_conversation(item: Any) -> bool:
    return isinstance(item, Mapping) and "messages" in item


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and "messages" not in item


def _is_id(item: Any) -> bool:
    return isinstance(item, int | np.integer) and not isinstance(item, bool)


def _checked(ids: Sequence[int], vocab_size: int, whole: bool) -> EncodedPrompt:
    if not ids:
        raise ValueError("prompt: needs at least one token, got none")
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ValueError(f"prompt: needs token ids in [0, {vocab_size}), got {token}")
    return EncodedPrompt(tuple(ids), whole)
