"""`medusa-ext inspect`: what a model's files say."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import tiny_directory
from vocabularies import byte_pairs, write_vocabulary

from medusa_ext.cli.main import main


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """What the command prints, by name."""
    assert main(["inspect", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    width = lines[0].index("/")
    return {line[:width].strip(): line[width:] for line in lines}


def test_the_default_model(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys)
    assert found["family"] == "llama, 30 layers of 576"
    assert found["vocabulary"] == "49152 rows, shared by embeddings and lm_head"
    assert found["weights"] == "210 in Q4_1, 61 in F32, 1 in Q8_0"
    assert found["tokenizer"] == "gpt2 smollm, 49152 tokens"
    assert found["begins with"] == "nothing" and found["chat template"] == "one"
    assert found["ends at"] == "<|endoftext|> (0), <|im_end|> (2)"


def test_a_start_token_that_is_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vocabulary(tmp_path / "m.gguf", byte_pairs(), pre="llama-bpe")
    found = facts(capsys, str(tmp_path / "m.gguf"))
    start = byte_pairs().start
    assert found["begins with"] == f"<|start|> ({start})"
    assert found["ends at"] == f"<|stop|> ({start + 1})" and found["chat template"] == "none"


def test_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, str(tiny_directory()))
    assert found["ends at"] == "<end> (256)" and found["weights"].endswith("in F32")


def test_a_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "no/such/model.gguf"]) == 2
    assert "no/such/model.gguf" in capsys.readouterr().err
