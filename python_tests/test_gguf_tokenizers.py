"""The tokenizers of GGUF files against llama.cpp's own tokenisation of the same files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llama_tokenizer import LlamaTokenizer
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split
from vocabularies import (
    Vocabulary,
    byte_pairs,
    marked_pairs,
    sentencepiece,
    texts,
    write_vocabulary,
)

from medusa_ext.checkpoints.files.gguf import GgufFile
from medusa_ext.checkpoints.tokenizer.gguf import convert_tokenizer
from medusa_ext.checkpoints.tokenizer.pre_types import PRE_TYPES

TEXT = "It'S don't  12345 x\n\n\u4f60\u597d\uff01 \xdcn/e\u0301"
# The words of TEXT, as their tokens in llama.cpp show them.
WORDS = {
    "default": "It|'|S| don|'|t| | |123|45| x|\n|\n|\u4f60\u597d|\uff01| \xdcn|/|e|\u0301",
    "llama-bpe": "It|'S| don|'t| | |123|45| x|\n\n|\u4f60\u597d|\uff01| \xdcn|/e|\u0301",
    "qwen2": "It|'S| don|'t| | |1|2|3|4|5| x|\n\n|\u4f60\u597d|\uff01| \xdcn|/e|\u0301",
    "gpt-2": "It|'|S| don|'t| | 12345| x|\n|\n|\u4f60\u597d|\uff01| \xdcn|/|e|\u0301",
    "smollm": "It|'|S| don|'t|  |1|2|3|4|5| x|\n|\n|\u4f60\u597d|\uff01| \xdcn|/|e|\u0301",
    "falcon": "It|'|S| don|'|t| | |123|45| x|\n|\n|\u4f60\u597d|\uff01| \xdcn|/|e|\u0301",
    "deepseek-llm": "It|'|S| don|'|t|  |12345| x|\n|\n|\u4f60\u597d|\uff01| \xdc|n|/|e|\u0301",
    "deepseek-coder": "It|'|S| don|'|t|  |1|2|3|4|5| x|\n|\n|\u4f60\u597d|\uff01| \xdcn|/|e|\u0301",
    "deepseek-v3": "It|'S| don|'t|  |123|45| x|\n\n|\u4f60\u597d|\uff01| \xdcn|/e|\u0301",
    "tekken": "It|'S| don|'t| | |1|2|3|4|5| x|\n\n|\u4f60\u597d|\uff01| \xdcn|/e|\u0301",
    "gpt-4o": "It'S| don't| | |123|45| x|\n\n|\u4f60\u597d|\uff01| \xdcn|/e|\u0301",
    "bloom": "It'S| don't| | 12345| x|\n\n|\u4f60\u597d\uff01| \xdcn/e\u0301",
    "superbpe": "It'S don't  |12|345| x\n\n\u4f60\u597d\uff01 \xdcn/e\u0301",
    "afmoe": "It|'S| don|'t| | |12|345| x|\n\n|\u4f60\u597d|\uff01| \xdcn|/e|\u0301",
    "qwen35": "It|'S| don|'t| | |1|2|3|4|5| x|\n\n|\u4f60\u597d|\uff01| \xdcn|/e\u0301",
    "gemma4": "It'S don't  12345 x|\n\n|\u4f60\u597d\uff01 \xdcn/e\u0301",
}
BYTE_LEVEL = sorted(name for name, pre in PRE_TYPES.items() if pre.byte_level)
MARKED = sorted(name for name, pre in PRE_TYPES.items() if not pre.byte_level)


def compare(path: Path, samples: list[str]) -> None:
    """Every sample has the same ids here and there, and they are its text again."""
    ours = convert_tokenizer(GgufFile(path))
    with LlamaTokenizer(path) as theirs:
        for text in samples:
            ids = ours.encode(text)
            assert ids == theirs.encode(text), text
            assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, False)


@pytest.mark.parametrize("pre", BYTE_LEVEL)
def test_byte_pairs(tmp_path: Path, pre: str) -> None:
    pytest.importorskip("xllamacpp")
    write_vocabulary(tmp_path / "m.gguf", byte_pairs(), pre=pre)
    compare(tmp_path / "m.gguf", texts(25, seed=1))


@pytest.mark.parametrize("pre", MARKED)
def test_marked_pairs(tmp_path: Path, pre: str) -> None:
    pytest.importorskip("xllamacpp")
    write_vocabulary(tmp_path / "m.gguf", marked_pairs(pre), pre=pre)
    compare(tmp_path / "m.gguf", texts(25, seed=1))


@pytest.mark.parametrize("prefix", [None, True, False])
def test_sentencepiece(tmp_path: Path, prefix: bool | None) -> None:
    pytest.importorskip("xllamacpp")
    extra = {} if prefix is None else {"add_space_prefix": prefix}
    write_vocabulary(tmp_path / "m.gguf", sentencepiece(), **extra)
    compare(tmp_path / "m.gguf", texts(50, seed=1))


@pytest.mark.parametrize("pre", WORDS)
def test_words(pre: str) -> None:
    cuts = [Split(Regex(expression), "isolated") for expression in PRE_TYPES[pre].expressions]
    words = [word for word, _ in Sequence(cuts).pre_tokenize_str(TEXT)]
    assert "|".join(words) == WORDS[pre]


# What a file says of its start token, and whether one comes first.
@pytest.mark.parametrize("add", [None, True, False])
@pytest.mark.parametrize(
    ("pre", "adds"),
    [("llama-bpe", True), ("tekken", True), ("smollm", False), ("qwen2", False), (None, True)],
)
def test_start_token(tmp_path: Path, pre: str | None, adds: bool, add: bool | None) -> None:
    """Llama 3's files of 2024 do not say, and llama.cpp starts their texts all the same."""
    vocabulary = sentencepiece() if pre is None else byte_pairs()
    extra: dict[str, Any] = {} if pre is None else {"pre": pre}
    extra |= {} if add is None else {"add_bos_token": add}
    write_vocabulary(tmp_path / "m.gguf", vocabulary, **extra)
    tokenizer = convert_tokenizer(GgufFile(tmp_path / "m.gguf"))
    starts = tokenizer.encode("a b")[0] == vocabulary.start
    assert starts == (adds if add is None else add)
    assert tokenizer.encode("a b", add_special_tokens=False)[0] != vocabulary.start


@pytest.mark.parametrize(("pre", "starts"), [("gemma4", True), ("sarvam-moe", False)])
def test_gemma_4_starts_whatever_its_file_says(tmp_path: Path, pre: str, starts: bool) -> None:
    vocabulary = marked_pairs(pre)
    write_vocabulary(tmp_path / "m.gguf", vocabulary, pre=pre, add_bos_token=False)
    tokenizer = convert_tokenizer(GgufFile(tmp_path / "m.gguf"))
    assert (tokenizer.encode("a")[0] == vocabulary.start) == starts


def test_sentencepiece_files_need_not_name_their_start(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "m.gguf", sentencepiece(), bos_token_id=None, eos_token_id=None)
    tokenizer = convert_tokenizer(GgufFile(tmp_path / "m.gguf"))
    assert tokenizer.encode("a")[0] == 1 and tokenizer.eos_token_id == 2


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("qwen2", False)])
def test_whole_words_before_merges(tmp_path: Path, pre: str, whole: bool) -> None:
    """Llama 3 takes a word that is a token whole, though no merges lead to it."""
    tokens = [*byte_pairs().tokens[:256], "ab", "\u0120abc"]
    vocabulary = Vocabulary("gpt2", tokens, [1] * len(tokens), ["a b"])
    write_vocabulary(tmp_path / "m.gguf", vocabulary, pre=pre, add_bos_token=False)
    tokenizer = convert_tokenizer(GgufFile(tmp_path / "m.gguf"))
    words = ["\u0120abc"] if whole else ["\u0120", "ab", "c"]
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(" abc")) == words


@pytest.mark.parametrize("pre", [None, "no-such"])
def test_unknown_pre_type_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pre: str | None
) -> None:
    write_vocabulary(tmp_path / "m.gguf", byte_pairs(), pre=pre)
    write_vocabulary(tmp_path / "known.gguf", byte_pairs(), pre="default")
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        tokenizer = convert_tokenizer(GgufFile(tmp_path / "m.gguf"))
    (record,) = caplog.records
    assert "m.gguf: tokenizer.ggml.pre" in record.message
    assert (pre or "missing") in record.message
    known = convert_tokenizer(GgufFile(tmp_path / "known.gguf"))
    assert tokenizer.encode(TEXT) == known.encode(TEXT)


@pytest.mark.parametrize("model", ["bert", "t5", "rwkv", "plamo2", "no_vocab"])
def test_other_models_are_refused_by_name(tmp_path: Path, model: str) -> None:
    write_vocabulary(tmp_path / "m.gguf", replace(byte_pairs(), model=model))
    with pytest.raises(ValueError, match=rf"m\.gguf: tokenizer\.ggml\.model: .*got '{model}'"):
        convert_tokenizer(GgufFile(tmp_path / "m.gguf"))


@pytest.mark.soak
@pytest.mark.parametrize("pre", [*PRE_TYPES, "sentencepiece"])
def test_thousands_of_texts(tmp_path: Path, pre: str) -> None:
    pytest.importorskip("xllamacpp")
    if pre == "sentencepiece":
        write_vocabulary(tmp_path / "m.gguf", sentencepiece())
    else:
        vocabulary = byte_pairs() if PRE_TYPES[pre].byte_level else marked_pairs(pre)
        write_vocabulary(tmp_path / "m.gguf", vocabulary, pre=pre)
    compare(tmp_path / "m.gguf", texts(2000, seed=2))
