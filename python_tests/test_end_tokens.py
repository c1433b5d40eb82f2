"""The tokens that end a turn, wherever a model's files say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_models import tiny_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import medusa_ext

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


def test_the_default_model_ends_its_turns() -> None:
    model = medusa_ext.load("smollm2-135m-instruct", heads=None)
    spelled = {model.tokenizer.convert_ids_to_tokens(token) for token in model.eos_ids}
    assert spelled == {"<|im_end|>", "<|endoftext|>"}
