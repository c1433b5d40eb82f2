"""Byte-pair tokenizers: text is cut into words, whose parts merge by rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from .pre_types import PreType

SPACE_MARK = "\u2581"


def byte_pair_tokenizer(
    tokens: Sequence[str], merges: Sequence[tuple[str, str]], pre: PreType
) -> Tokenizer:
    """The tokenizer of `tokens` (the index is the id) and `merges` (the first one comes first)."""
    cuts: list[Any] = [pre_tokenizers.Split(Regex(e), "isolated") for e in pre.expressions]
    model = models.BPE(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(merges),
        ignore_merges=pre.ignore_merges,
        byte_fallback=not pre.byte_level,
    )
    tokenizer = Tokenizer(model)
    if pre.byte_level:
        cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE_MARK)
        tokenizer.decoder = marked_decoder()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    return tokenizer


def marked_decoder(strips_start: bool = False) -> Any:
    """Text of tokens with marked spaces and <0xFF> bytes, perhaps without the space before it."""
    steps = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * strips_start)
