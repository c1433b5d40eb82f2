"""Text from tokens as they arrive: linear, and never half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

# A UTF-8 character has at most four bytes, and a token with text at least one: what was a
# replacement character three tokens ago and still is one will stay one.
_OPEN_TOKENS: Final = 3

# Where text never ends cleanly (broken UTF-8, ids without text), tokens do not pile up beyond this.
_MAX_NEW: Final = 8


class TextDecoder:
    """Gives a tokenizer of transformers that is written in Python what is used here of a
    `tokenizers.Tokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` without control tokens."""
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """The added tokens by id."""
        added: dict[int, Any] = self._tokenizer.added_tokens_decoder
        return added


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of a `tokenizers.Tokenizer` that stand for control tokens, not for text."""
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(token for token, content in added.items() if content.special)


class Detokenizer:
    """Turns tokens into text piece by piece; the pieces join to the decoding of all tokens.

    Works with any `tokenizers` decoder (byte-level BPE, SentencePiece with byte fallback): a new
    token is decoded together with the few before it, and what they alone decode to is cut off, so
    a leading space that a decoder strips at the start of a text is not lost inside it. Special
    tokens add no text. Incomplete UTF-8 is held back until it is complete or cannot become so.
    """

    def __init__(self, tokenizer: Any, context: Sequence[int] = ()) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`; `context` holds the last tokens of the text
        that is continued, if the new text is to be read as its continuation."""
        self._decode: Callable[[Sequence[int]], str] = tokenizer.decode
        self._special = special_ids(tokenizer)
        self._window = list(context)
        self._new = len(self._window)  # the first token of the window that is not context
        self._before = self._decode(self._window) if self._window else ""
        if self._before.endswith(REPLACEMENT):
            self._window, self._new, self._before = [], 0, ""
        self._released = 0  # characters of the new tokens' text that were handed out
        self._lengths = [0] * _OPEN_TOKENS  # of the new tokens' text, some tokens ago first

    def add(self, token: int) -> str:
        """The text that `token` completes; may be empty."""
        if token in self._special:
            return ""
        self._window.append(token)
        text = self._text()
        settled = len(text.rstrip(REPLACEMENT))
        if settled < len(text):
            settled = max(settled, min(self._lengths[0], len(text)))
        piece = text[self._released : settled]
        self._released = max(self._released, settled)
        is_long = len(self._window) - self._new >= _MAX_NEW
        if settled == len(text) and (text or is_long):
            self._advance(len(self._window))
        elif is_long:
            self._advance(len(self._window) - _OPEN_TOKENS)
        else:
            self._lengths = [*self._lengths[1:], len(text)]
        return piece

    def flush(self) -> str:
        """What is held back when no more tokens come: an unfinished character's replacement."""
        text = self._text()
        piece = text[self._released :]
        self._released = len(text)
        return piece

    def _text(self) -> str:
        """The text of the new tokens."""
        return self._decode(self._window)[len(self._before) :] if self._window else ""

    def _advance(self, end: int) -> None:
        """Makes the new tokens up to `end` the context, and drops the context there was."""
        held = len(self._text()) - self._released
        self._window = self._window[self._new :]
        self._new = end - self._new
        self._before = self._decode(self._window[: self._new])
        self._released = max(len(self._text()) - held, 0) if self._new < len(self._window) else 0
        self._lengths = [0] * _OPEN_TOKENS
