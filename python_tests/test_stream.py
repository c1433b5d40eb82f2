"""Text from tokens as they arrive, and streams of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from medusa_ext.text.detokenizer import REPLACEMENT, Detokenizer, TextDecoder

TEXT = "Hello wörld, 你好 🎉🎉\n\n  x = 1\tñandú   end "


def byte_level() -> Tokenizer:
    """A byte-level BPE tokenizer in which every byte is a token: characters always fall apart."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


def sentence_piece() -> Tokenizer:
    """A tokenizer like Llama 2's: words begin with a mark, unknown characters fall into bytes."""
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    words += ["▁", "▁Hello", "▁end", "▁x", "▁=", "w", "r", "l", "d", "n", "a", ",", "1", "\n"]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words[:3]])
    return tokenizer


def pieces_of(tokenizer: Any, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [detokenizer.add(token) for token in ids] + [detokenizer.flush()]


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_pieces_join_to_the_text(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids) == TEXT
    assert not any(REPLACEMENT in piece for piece in pieces)
    # Each character appears with the token that completes it.
    assert sum(map(bool, pieces)) >= len(TEXT)


BYTES = byte_level()
PIECES = sentence_piece()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 256), max_size=40))
def test_any_bytes_as_decoded_at_once(ids: list[int]) -> None:
    """Broken UTF-8 too: pieces join to the decoding of all tokens."""
    assert "".join(pieces_of(BYTES, ids)) == BYTES.decode(ids)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_any_text_of_a_sentence_piece_tokenizer(text: str) -> None:
    ids = PIECES.encode(text, add_special_tokens=False).ids
    assert "".join(pieces_of(PIECES, ids)) == PIECES.decode(ids)


def ids_of(*words: str) -> list[int]:
    found = [PIECES.token_to_id(word) for word in words]
    return [token for token in found if token is not None]


def test_context_keeps_the_leading_space() -> None:
    ids = ids_of("▁Hello", "▁end", "▁x")
    assert "".join(pieces_of(PIECES, ids[1:])) == "end x"
    continued = Detokenizer(PIECES, context=ids[:1])
    assert [continued.add(token) for token in ids[1:]] == [" end", " x"]


def test_special_tokens_add_nothing_and_hide_nothing() -> None:
    (end,) = ids_of("</s>")
    ids = ids_of("▁Hello", "</s>", "▁end")
    assert pieces_of(PIECES, ids) == ["Hello", "", " end", ""]
    assert pieces_of(PIECES, [end] * 50) == [""] * 51


def test_unfinished_character_shows_at_the_end() -> None:
    ids = BYTES.encode("a🎉").ids
    assert pieces_of(BYTES, ids[:3]) == ["a", "", "", REPLACEMENT]


def test_work_is_linear() -> None:
    """Decoded tokens per token stay few, also over broken UTF-8 and ids without a token."""

    class Counting:
        decoded = 0

        def decode(self, ids: list[int]) -> str:
            self.decoded += len(ids)
            return BYTES.decode(ids)

        def get_added_tokens_decoder(self) -> dict[int, Any]:
            return BYTES.get_added_tokens_decoder()

    broken = BYTES.encode("🎉").ids[0]
    for ids in (BYTES.encode(TEXT * 20).ids, [broken] * 1000, [100_000] * 1000):
        counting = Counting()
        pieces_of(counting, ids)
        assert counting.decoded < 25 * len(ids)


def test_tokenizers_written_in_python() -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    ids = tokenizer.encode(TEXT)
    assert "".join(pieces_of(TextDecoder(tokenizer), ids)) == TEXT
