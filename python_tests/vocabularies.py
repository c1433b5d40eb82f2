"""Vocabularies whose tokens show where text was cut, in GGUF files, and texts full of edges."""

# ruff: noqa: RUF001  (the signs of other scripts are meant)
from __future__ import annotations

import functools
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

# Words in many scripts, numbers, signs, white space, and what is between these.
PIECES = """
a b word Word WORD camelCase don't IT'S we'LL 're 'VE 'd x'M ' '' 1 12 123 1234 12345
1234567 1,234.5 ٣٤٥٦ Ⅷ ½ ² ! ?! ... -- == <=> $5 # ~ ` ^ | \\ / // {} [x] (a) @me _x_ % &
* + - : ; é É ñandú Straße ŒUVRE Привет МИР ελλάς ΑΒΓ שלום سلام नमस्ते हिन्दी ไทย ภาษา ລາວ
မြန်မာ ខ្មែរ 中文 汉字漢字 々 日本語 ひらがな カタカナ ｶﾅ 한국어 ㄅㄆ ㅋㅋ ， 。 、 ！ ？
： “q” ‘s’ … — 。。 🎉 👩‍👩‍👧 🇩🇪 İ ı ſ 'ſ K Ω ﬁ Ａｂ １２ 𝒳 𐐀 𠀀 豈 � । ۔ ، IMGIMGABZ
<sentinel:12> ¡ ¿ § ° € £ ± × ÷ ª º ǅ ʰ ʻ ابجد ١٢ a1b2 1a #1 Ａ
""".split()
PIECES += [" ", "  ", "   ", "    ", "        ", "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\u00a0"]
PIECES += ["\u3000", "\u2003", "\u0085", "\u200b", "\u200c", "\u200d", "e\u0301", "a\u0308b"]
PIECES += ["\u0301", "\ue000", "\x01", "\x1c", "\x7f", "word ' s", "a b c", "x  1", "\t1", " \t a"]
PIECES += ["10 000", "\n1", " 's", "\u2581"]
SPECIAL = {"<|start|>": 3, "<|stop|>": 3, "<mine>": 4}


def texts(count: int, seed: int, pieces: Sequence[str] = (*PIECES, *SPECIAL)) -> list[str]:
    """Random sequences of the pieces."""
    rng = random.Random(seed)
    return ["".join(rng.choices(pieces, k=rng.randint(1, 14))) for _ in range(count)]


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of its tokens, but for the special ones that `write_vocabulary` adds:
    a start, a stop and a user-defined token."""

    model: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str] | None = None
    scores: Sequence[float] | None = None

    @property
    def start(self) -> int:
        """The id of the start token."""
        return len(self.tokens)


@functools.cache
def byte_pairs() -> Vocabulary:
    """Byte-level tokens that merge across any edge: letters with spaces, digits, signs, lines."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=12,
    )
    tokenizer.train_from_iterator(texts(4000, seed=99, pieces=PIECES), trainer)
    return _trained("gpt2", tokenizer)


def _trained(model: str, tokenizer: Tokenizer) -> Vocabulary:
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].__getitem__)
    return Vocabulary(model, tokens, [1] * len(tokens), [" ".join(m) for m in state["merges"]])


@functools.cache
def marked_pairs(pre: str) -> Vocabulary:
    """Plain characters with U+2581 for spaces and byte tokens, as Gemma 4 has them, whose files
    name a model of their own."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=2000, show_progress=False, limit_alphabet=300)
    marked = (text.replace(" ", "\u2581") for text in texts(4000, seed=98, pieces=PIECES))
    tokenizer.train_from_iterator((line for text in marked for line in text.split("\n")), trainer)
    trained = _trained("gemma4" if pre == "gemma4" else "gpt2", tokenizer)
    tokens = [*trained.tokens, *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [1] * len(trained.tokens) + [6] * 256
    return replace(trained, tokens=tokens, types=types)


@functools.cache
def sentencepiece_model() -> bytes:
    """A byte-pair model of SentencePiece with byte tokens, as Llama 2 has it."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts(4000, seed=97, pieces=PIECES)),
        model_writer=written,
        model_type="bpe",
        vocab_size=2000,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_by_whitespace=False,
        minloglevel=2,
    )
    return written.getvalue()


@functools.cache
def sentencepiece() -> Vocabulary:
    """The tokens and scores of that model."""
    from sentencepiece import SentencePieceProcessor

    model: Any = SentencePieceProcessor(model_proto=sentencepiece_model())
    size = model.get_piece_size()
    kinds = {0: 2, 1: 3, 2: 3}  # unknown, start and end
    types = [6 if model.is_byte(i) else kinds.get(i, 1) for i in range(size)]
    scores = [model.get_score(i) for i in range(size)]
    return Vocabulary("llama", [model.id_to_piece(i) for i in range(size)], types, scores=scores)


def write_vocabulary(path: Path, vocabulary: Vocabulary, **metadata: Any) -> None:
    """A GGUF file of a model of one layer of zeros with this vocabulary; `metadata` are the
    values of further keys under "tokenizer.ggml"; None leaves a key out."""
    tokens = [*vocabulary.tokens, *SPECIAL]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_token_list(tokens)
    writer.add_token_types([*vocabulary.types, *SPECIAL.values()])
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores([*vocabulary.scores, 0.0, 0.0, 0.0])
    values = {"bos_token_id": vocabulary.start, "eos_token_id": vocabulary.start + 1} | metadata
    for key, value in values.items():
        if value is None:
            continue
        key = f"tokenizer.ggml.{key}"
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        else:
            writer.add_uint32(key, value)
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,), "output": (len(tokens), 32)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        shapes[f"blk.0.{name}"] = (32, 32)
    for name in ("attn_norm", "ffn_norm"):
        shapes[f"blk.0.{name}"] = (32,)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
