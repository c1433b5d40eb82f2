"""Files that others load: whatever their names, their layouts, and what they disagree about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading_models import tiny_model, write_gguf
from safetensors.torch import load_file, save_file

from medusa_ext.checkpoints import iter_weights, load_tokenizer, open_source
from medusa_ext.text.prompts import encode

State = dict[str, torch.Tensor]


def weights(path: Path) -> dict[str, Any]:
    """Every weight of a model by canonical name."""
    return {name: weight.to_float().copy() for name, weight in iter_weights(open_source(path))}


def directory(path: Path, change: Callable[[State], State] = dict, **options: Any) -> Path:
    """A tiny model whose one file's tensors went through `change`."""
    tiny_model("llama", **options).save_pretrained(path)
    save_file(change(load_file(path / "model.safetensors")), path / "model.safetensors")
    return path


@pytest.mark.parametrize("name", ["model", "model.GGUF", "model.gguf", "sha256-12ab", "m.bin"])
def test_gguf_files_are_known_by_their_beginning(tmp_path: Path, name: str) -> None:
    write_gguf(tmp_path / name, tiny_model("llama"))
    assert open_source(tmp_path / name).gguf is not None


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\3\4", b"FUGG" + bytes(40)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(ValueError, match=r"model: .*directory or a \.gguf file"):
        open_source(tmp_path / "model")
    (tmp_path / "model.gguf").write_bytes(content.ljust(24))
    with pytest.raises(ValueError, match=r"model\.gguf: magic: needs b'GGUF'"):
        open_source(tmp_path / "model.gguf")


def test_folders_with_gguf_files(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.GGUF", tiny_model("llama"))
    assert open_source(tmp_path).path == tmp_path / "a.GGUF"
    # As repositories of GGUF files have it.
    (tmp_path / "config.json").write_text("{}")
    assert open_source(tmp_path).path == tmp_path / "a.GGUF"
    shutil.copy(tmp_path / "a.GGUF", tmp_path / "b.gguf")
    with pytest.raises(ValueError, match=r"one of its GGUF files, got \['a\.GGUF', 'b\.gguf'\]"):
        open_source(tmp_path)
    directory(tmp_path)
    assert open_source(tmp_path).gguf is None


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("prefix", ["", "module.model.", "language_model.model.", "_orig.model."])
def test_names_with_other_beginnings(tmp_path: Path, prefix: str, tied: bool) -> None:
    """The inner model's own files, and those of a model wrapped in another."""

    def renamed(state: State) -> State:
        outer = prefix.removesuffix("model.")
        return {
            prefix + name.removeprefix("model.") if name.startswith("model.") else outer + name: t
            for name, t in state.items()
        }

    plain = directory(tmp_path / "plain", tie_word_embeddings=tied)
    other = directory(tmp_path / "other", renamed, tie_word_embeddings=tied)
    wanted, found = weights(plain), weights(other)
    assert wanted.keys() == found.keys()
    assert all((found[name] == wanted[name]).all() for name in wanted)


def test_the_format_of_torch_before_1_6(tmp_path: Path) -> None:
    state = load_file(directory(tmp_path) / "model.safetensors")
    wanted = weights(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    found = weights(tmp_path)
    assert all((found[name] == wanted[name]).all() for name in wanted)


class Evil:
    """Runs code where a pickle is loaded trustingly."""

    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_code_in_that_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": Evil()}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin.*code in a pickle is never run"):
        open_source(tmp_path)
    torch.save({"a": torch.zeros(9)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for end in (20, 100, len(content) - 8):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
            open_source(tmp_path)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("own", [True, False])
def test_a_tied_model_with_an_lm_head(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, own: bool
) -> None:
    """Used where it differs from the embeddings; a mere copy of them is not kept twice."""

    def with_head(state: State) -> State:
        head = state["model.embed_tokens.weight"].clone()
        head[-1, -1] += 1.0 if own else 0.0
        return state | {"lm_head.weight": head}

    directory(tmp_path, with_head, tie_word_embeddings=True)
    found = weights(tmp_path)
    assert ("lm_head" in found) == own
    assert ("tie_word_embeddings is true, but lm_head.weight differs" in caplog.text) == own
    if own:
        assert np.argwhere(found["lm_head"] != found["embed"]).tolist() == [[95, 63]]


def test_a_tokenizer_longer_than_the_embeddings(tmp_path: Path) -> None:
    """A pad token that was added without a row: what does not use it works."""
    from models import byte_tokenizer
    from transformers import PreTrainedTokenizerFast

    directory(tmp_path, vocab_size=258)
    backend = byte_tokenizer()
    assert backend.get_vocab_size() == 259
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(open_source(tmp_path))
    last = tokenizer.convert_ids_to_tokens(258)
    assert len(encode(tokenizer, 258, "hi", continues=False).tokens) == 2
    with pytest.raises(ValueError, match=r"prompt: needs token ids in \[0, 258\), got 258"):
        encode(tokenizer, 258, f"hi{last}", continues=False)


def sentencepiece_directory(path: Path) -> Path:
    """A model whose only tokenizer file is a tokenizer.model."""
    from vocabularies import sentencepiece_model

    directory(path, vocab_size=2000)
    (path / "tokenizer.model").write_bytes(sentencepiece_model())
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"unk_token": "<unk>"}))
    return path


def test_a_sentencepiece_model_alone(tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf")
    from sentencepiece import SentencePieceProcessor

    path = sentencepiece_directory(tmp_path)
    theirs: Any = SentencePieceProcessor(model_file=str(path / "tokenizer.model"))
    ours = load_tokenizer(open_source(path))
    for text in ("hello", "a b c", "word 1234", "\u4e2d\u6587"):
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text)


@pytest.mark.parametrize("missing", ["sentencepiece", "google.protobuf"])
def test_the_extra_for_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else found(name)
    )
    path = sentencepiece_directory(tmp_path)
    name = {"google.protobuf": "protobuf"}.get(missing, missing)
    with pytest.raises(ImportError, match=rf"tokenizer\.model.*{name}.*medusa-ext\[sentencepiece"):
        load_tokenizer(open_source(path))
