"""Text from tokens as they arrive: linear, and never half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

# A UTF-8 character has at most four bytes and a token at least one: text that still ends in a
# replacement character after this many tokens is not an unfinished character.
_MAX_OPEN_TOKENS: Final = 4

# Tokens without any text (ids beyond the vocabulary) do not pile up beyond this.
_MAX_WINDOW: Final = 16


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
        self._new = len(self._window)  # first token of the window whose text is not settled
        self._before = self._decode(self._window) if self._window else ""
        self._released = 0  # characters of the window's text after `before` that were handed out
        self._open_tokens = 0
        if self._before.endswith(REPLACEMENT):
            self._window, self._new, self._before = [], 0, ""

    def add(self, token: int) -> str:
        """The text that `token` completes; may be empty."""
        if token in self._special:
            return ""
        self._window.append(token)
        text = self._decode(self._window)[len(self._before) :]
        stable = len(text.rstrip(REPLACEMENT))
        self._open_tokens = self._open_tokens + 1 if stable <= self._released else 1
        if stable == len(text) or self._open_tokens >= _MAX_OPEN_TOKENS:
            piece = text[self._released :]
            if text or len(self._window) > _MAX_WINDOW:
                self._advance()
            return piece
        piece = text[self._released : stable]
        self._released = max(self._released, stable)
        return piece

    def flush(self) -> str:
        """What is held back when no more tokens come: an unfinished character's replacement."""
        text = self._decode(self._window)[len(self._before) :] if self._window else ""
        piece = text[self._released :]
        self._released = len(text)
        return piece

    def _advance(self) -> None:
        """Keeps only the tokens since the last settled text, as context for those to come."""
        del self._window[: self._new]
        self._new = len(self._window)
        self._before = self._decode(self._window)
        self._released = 0
        self._open_tokens = 0
