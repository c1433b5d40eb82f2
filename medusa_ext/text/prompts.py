"""Prompts in every accepted form, turned into token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Message = Mapping[str, str]
Prompt = str | Sequence[int] | Sequence[Message]

_MARKS: Final = tuple(chr(code) for code in range(0xE000, 0xE100))


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
    if isinstance(prompt, str):
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
    if all(_is_id(item) for item in prompt) or all(isinstance(i, Mapping) for i in prompt):
        return [prompt], False
    if all(isinstance(i, str) or (isinstance(i, Sequence | np.ndarray)) for i in prompt):
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
        _check_unicode(prompt)
        ids = tokenizer.encode(prompt, add_special_tokens=not continues)
        return _checked(ids, vocab_size, whole=False)
    if isinstance(prompt, np.ndarray) and prompt.ndim == 1:
        prompt = prompt.tolist()
    if not isinstance(prompt, Sequence) or not prompt:
        raise ValueError(f"prompt: needs at least one token, got {prompt!r}")
    if all(isinstance(item, Mapping) for item in prompt):
        return _checked(encode_chat(tokenizer, prompt), vocab_size, whole=True)
    if not all(_is_id(item) for item in prompt):
        raise TypeError(f"prompt: needs token ids or chat messages, got {prompt!r:.120}")
    return _checked([int(item) for item in prompt], vocab_size, whole=False)


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation in the model's chat template, the assistant's turn opened.

    A control token's spelling inside a message is cut in two by a private-use character, which
    survives the template; the rendered text is then tokenised in pieces cut at these marks, so the
    spelling stays text: no message can end its turn or open another.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("prompt: chat messages need a model with a chat template; this has none")
    for message in messages:
        if not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(
                f"prompt: a chat message needs 'role' and 'content' strings, got {message!r:.120}"
            )
        _check_unicode(message["content"])
    everything = "".join(str(value) for message in messages for value in message.values())
    mark = next((mark for mark in _MARKS if mark not in everything), None)
    if mark is None:
        raise ValueError(
            "prompt: needs one private-use character left to mark pieces, got them all"
        )
    spellings = _control_spellings(tokenizer)
    guarded = [
        {key: _cut(value, spellings, mark) for key, value in message.items()}
        for message in messages
    ]
    try:
        text = tokenizer.apply_chat_template(guarded, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja's own kinds, raised by the template
        raise ValueError(f"prompt: the model's chat template refused it: {error}") from error
    ids: list[int] = []
    for piece in text.split(mark):
        ids += tokenizer.encode(piece, add_special_tokens=False)
    return ids


def _control_spellings(tokenizer: Any) -> list[str]:
    added = tokenizer.added_tokens_decoder.values()
    return sorted({token.content for token in added if len(token.content.strip()) > 1}, key=len)


def _cut(text: Any, spellings: Sequence[str], mark: str) -> Any:
    if not isinstance(text, str):
        return text
    for spelling in spellings:
        text = text.replace(spelling, spelling[0] + mark + spelling[1:])
    return text


def _check_unicode(text: str) -> None:
    """ValueError for half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        got = f"{text[error.start]!r} at {error.start}"
        raise ValueError(f"prompt: needs valid Unicode, got {got}") from error


def _is_id(item: Any) -> bool:
    return isinstance(item, int | np.integer) and not isinstance(item, bool)


def _checked(ids: Sequence[int], vocab_size: int, whole: bool) -> EncodedPrompt:
    if not ids:
        raise ValueError("prompt: needs at least one token, got none")
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ValueError(f"prompt: needs token ids in [0, {vocab_size}), got {token}")
    return EncodedPrompt(tuple(ids), whole)
