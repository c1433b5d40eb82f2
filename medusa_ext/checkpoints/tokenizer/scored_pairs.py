"""SentencePiece's byte-pair tokenizers: any two parts merge that make a token, the best score
first; what is no token is spelled in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, models, normalizers

from .byte_pairs import SPACE_MARK, marked_decoder


def scored_pair_tokenizer(
    tokens: Sequence[str],
    scores: Sequence[float],
    mergeable: Iterable[int],
    unknown: str | None,
    adds_space: bool,
) -> Tokenizer:
    """The tokenizer of `tokens` (the index is the id) with a score each.

    mergeable: ids of the tokens that parts may merge to. unknown: the token for characters where
    byte tokens are missing. adds_space: before a text, and after every control token.
    """
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = _merges(vocab, tokens, scores, mergeable)
    model = models.BPE(
        vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    marks: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE_MARK)]
    if adds_space:
        marks.insert(0, normalizers.Prepend(SPACE_MARK))
    tokenizer.normalizer = normalizers.Sequence(marks)
    tokenizer.decoder = marked_decoder(strips_start=adds_space)
    return tokenizer


def _merges(
    vocab: dict[str, int], tokens: Sequence[str], scores: Sequence[float], mergeable: Iterable[int]
) -> list[tuple[str, str]]:
    """Every way to make a mergeable token of two others, by falling score of what it makes."""
    found = []
    for index in mergeable:
        token = tokens[index]
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                found.append((-scores[index], index, (left, right)))
    return [pair for _, _, pair in sorted(found)]
