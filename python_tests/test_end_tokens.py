"""The tokens that end a turn, wherever a model's files say so."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_tokenizer import LlamaTokenizer
from loading_models import tiny_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vocabularies import byte_pairs, write_vocabulary

import medusa_ext
from medusa_ext.checkpoints import load_tokenizer, open_source
from medusa_ext.checkpoints.tokenizer.ends import SPELLINGS, end_ids

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>")  # ids 256 ... 260
END, EOS, UNUSED = 259, 257, 260
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def directory(path: Path, eos_token: str | None, template: str | None) -> Path:
    """A model sure of <|im_end|> after "hi", whose configs name </s> alone."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    model = tiny_model("llama", vocab_size=272, eos_token_id=EOS, bos_token_id=256)
    with torch.no_grad():
        hidden = model.model(torch.tensor([[72, 105]])).last_hidden_state[0, -1]
        model.lm_head.weight[END] = hidden * 10
    model.save_pretrained(path)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos_token, chat_template=template
    ).save_pretrained(path)
    return path


@pytest.mark.parametrize("generation_config", [True, False])
@pytest.mark.parametrize(
    ("eos_token", "template", "wanted"),
    [
        ("<|im_end|>", TEMPLATE, {EOS, END}),
        ("</s>", TEMPLATE, {EOS, END}),
        ("<|im_end|>", None, {EOS, END}),
        ("</s>", None, {EOS}),
        (None, None, {EOS}),
    ],
)
def test_every_place_counts(
    tmp_path: Path,
    generation_config: bool,
    eos_token: str | None,
    template: str | None,
    wanted: set[int],
) -> None:
    path = directory(tmp_path, eos_token, template)
    place = path / "generation_config.json"
    if generation_config:
        place.write_text(json.dumps({"eos_token_id": EOS}))
    else:
        place.unlink()
    model = medusa_ext.load(path, heads=None)
    assert set(model.eos_ids) == wanted
    out: Any = medusa_ext.generate(model, [72, 105], 8)
    assert (out.finish_reason == "eos") == (END in wanted)


def gguf_ends(path: Path, kinds: dict[str, int], **metadata: Any) -> tuple[set[str], int]:
    """How the end tokens of a file with these tokens are spelled; the number of all its tokens."""
    vocabulary = byte_pairs()
    tokens, types = [*vocabulary.tokens, *kinds], [*vocabulary.types, *kinds.values()]
    write_vocabulary(path, replace(vocabulary, tokens=tokens, types=types), pre="gpt-2", **metadata)
    source = open_source(path)
    tokenizer: Any = load_tokenizer(source)
    return {tokenizer.convert_ids_to_tokens(t) for t in end_ids(source, tokenizer)}, len(tokenizer)


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_spelled_ends_of_gguf_files(tmp_path: Path, kind: int) -> None:
    """Their kind, normal, control or user-defined, does not matter."""
    found, _ = gguf_ends(tmp_path / "m.gguf", {"<|im_end|>": kind, "<|im_start|>": kind})
    assert found == {"<|stop|>", "<|im_end|>"}


def test_ends_of_gguf_files_are_llama_cpps(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    rng = random.Random(5)
    known = [spelling for spelling in SPELLINGS if spelling != "<|end_of_turn|>"]
    for number in range(12):
        kinds = {spelling: rng.choice([1, 3, 4]) for spelling in rng.sample(known, 8)}
        path = tmp_path / f"{number}.gguf"
        found, size = gguf_ends(path, kinds)
        tokenizer: Any = load_tokenizer(open_source(path))
        with LlamaTokenizer(path) as theirs:
            wanted = set(tokenizer.convert_ids_to_tokens(sorted(theirs.ends(size))))
        assert found == wanted, kinds


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        ("<|end|>", {"<|end|>"}),
        ("<|end|> <|return|> <|call|>", {"<|return|>", "<|call|>"}),
        ("<|end|> <|flush|> <|calls|>", {"<|flush|>", "<|calls|>"}),
        ("</s> <|tool_response>", {"<|tool_response>"}),
    ],
)
def test_some_spellings_overrule_others(tmp_path: Path, tokens: str, ends: set[str]) -> None:
    found, _ = gguf_ends(tmp_path / "m.gguf", dict.fromkeys(tokens.split(), 3))
    assert found == ends | {"<|stop|>"}


def test_end_tokens_without_a_row_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Converters write 2^32 - 1 for "none"."""
    found, _ = gguf_ends(tmp_path / "m.gguf", {"<|im_end|>": 3}, eos_token_id=2**32 - 1)
    assert found == {"<|im_end|>"}
    assert "tokenizer.ggml.eos_token_id: needs token ids" in caplog.text


def test_the_default_model_ends_its_turns() -> None:
    model = medusa_ext.load("smollm2-135m-instruct", heads=None)
    spelled = {model.tokenizer.convert_ids_to_tokens(token) for token in model.eos_ids}
    assert spelled == {"<|im_end|>", "<|endoftext|>"}
