"""Self-distillation: backends, answers, shards, resuming."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import END, TINY_VOCAB, tiny, tiny_directory
from training_data import SETTINGS, distiller, torch_backend
from transformers import AutoModelForCausalLM

import medusa_ext.training.data.distill as distill_module
from medusa_ext.engine.session import common_prefix
from medusa_ext.training.data.answer import Job
from medusa_ext.training.data.backend import Backend
from medusa_ext.training.data.distill import open_run
from medusa_ext.training.data.engine_backend import EngineBackend
from medusa_ext.training.data.prompts import Exclusion, Prompt
from medusa_ext.training.data.self_prompts import encode_prompt, self_prompts
from medusa_ext.training.data.shards import (
    Conversation,
    Manifest,
    read_shard,
    to_float16,
    write_shard,
)


def prompt_ids(count: int, seed: int = 0) -> list[np.ndarray]:
    """Random prompts of different lengths."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 250, random.integers(3, 40)).astype(np.int32) for _ in range(count)]


def answers(backend: Backend, temperature: float, seed: int = 0) -> dict[int, Conversation]:
    """Ten prompts answered, 20 tokens each at most."""
    jobs = [Job(i, ids, seed + i) for i, ids in enumerate(prompt_ids(10))]
    return dict(backend.answer(jobs, frozenset([END]), 20, temperature))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_torch_backend_is_the_model(family: str) -> None:
    directory = tiny_directory(family)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    found = answers(torch_backend(directory, batch=3), 0.0)
    assert sorted(found) == list(range(10))
    for index, prompt in enumerate(prompt_ids(10)):
        one = found[index]
        ids = torch.from_numpy(np.concatenate([prompt, one.answer]).astype(np.int64))[None]
        with torch.inference_mode():
            out = model(ids, output_hidden_states=True)
        first, last = len(prompt) - 1, len(prompt) + len(one.answer) - 1
        logits = out.logits[0, first:last]
        chosen = logits.gather(1, torch.from_numpy(one.answer).long()[:, None])[:, 0]
        assert float((logits.amax(1) - chosen).max()) < 1e-3
        true = out.hidden_states[-1][0, first:last].numpy()
        assert np.abs(one.hidden.astype(np.float32) - true).max() < 2e-3 * np.abs(true).max()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_an_answer_does_not_depend_on_what_shares_the_batch(temperature: float) -> None:
    narrow = answers(torch_backend(tiny_directory(), batch=1), temperature)
    wide = answers(torch_backend(tiny_directory(), batch=7), temperature)
    for index in range(10):
        assert narrow[index].answer.tolist() == wide[index].answer.tolist()
    other = answers(torch_backend(tiny_directory(), batch=7), temperature, seed=50)
    differ = any(other[i].answer.tolist() != wide[i].answer.tolist() for i in range(10))
    assert differ == (temperature > 0)


def test_the_engine_gives_the_torch_backends_answers() -> None:
    native = EngineBackend(replace(tiny(), kv_dtype="bfloat16"), 4, 100)
    found, expected = answers(native, 0.0), answers(torch_backend(tiny_directory()), 0.0)
    same = total = 0
    for index in range(10):
        one, other = found[index], expected[index]
        # Its 16-bit cache may tip a close decision; up to there both see the same text.
        shared = common_prefix(one.answer, other.answer.tolist())
        rows = slice(0, min(shared + 1, len(one.answer), len(other.answer)))
        difference = one.hidden[rows].astype(np.float32) - other.hidden[rows]
        assert np.abs(difference).max() < 0.03 * np.abs(other.hidden).max()
        same, total = same + shared, total + len(other.answer)
    assert same > 0.8 * total
    assert answers(native, 0.9, 1)[3].answer.tolist() == answers(native, 0.9, 1)[3].answer.tolist()


def test_answers_end_at_the_end_token_a_loop_or_the_limit() -> None:
    found = answers(torch_backend(tiny_directory()), 1.0)
    for one in found.values():
        tokens = one.answer.tolist()
        assert len(tokens) == len(one.hidden) <= 20
        assert END not in tokens[:-1]
    backend = torch_backend(tiny_directory())
    long = dict(backend.answer([Job(0, prompt_ids(1)[0], 0)], frozenset(), 110))
    tokens = long[0].answer.tolist()
    grams = [tuple(tokens[i : i + 12]) for i in range(len(tokens) - 11)]
    assert len(grams) == len(set(grams))


def test_a_killed_run_resumes_to_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distiller(tmp_path / "whole").run(2600)
    written = 0

    def dies(path: Path, conversations: list[Conversation]) -> None:
        nonlocal written
        if written == 2:
            raise KeyboardInterrupt
        written += 1
        write_shard(path, conversations)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(distill_module, "write_shard", dies)
        distiller(tmp_path / "killed").run(2600)
    assert Manifest.load(tmp_path / "killed").tokens < whole.tokens
    # Another batch size changes nothing either.
    resumed = distiller(tmp_path / "killed", batch=9).run(2600)
    assert resumed.shards == whole.shards and resumed.tokens >= 2600
    for shard in whole.shards:
        first = read_shard(tmp_path / "whole" / shard.name)
        second = read_shard(tmp_path / "killed" / shard.name)
        assert [c.answer.tolist() for c in first] == [c.answer.tolist() for c in second]


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    run = distiller(tmp_path)
    other = replace(SETTINGS, seed=9)
    fresh = replace(run.manifest, settings={"seed": 9})
    with pytest.raises(ValueError, match="resuming needs the same settings"):
        open_run(tmp_path, fresh, other)
    with pytest.raises(ValueError, match="same model fingerprint"):
        open_run(tmp_path, replace(run.manifest, fingerprint="other"), SETTINGS)


def test_the_users_prompts_are_all_answered_but_those_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = "please tell me all about the great wall of china"
    texts = ["first question", "second question", held, "First question!", "x" * 500]
    prompts = tuple(Prompt.ask(text, "file") for text in texts)
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        made = distiller(tmp_path, prompts=prompts, exclusion=Exclusion([held])).run(10**6)
    assert "all prompts are answered" in caplog.text
    assert made.finished and 0 < made.conversations <= 2
    lines = (tmp_path / "prompts-0000.jsonl").read_text().splitlines()
    kept = {json.loads(line)["messages"][0]["content"] for line in lines}
    assert kept == {"first question", "second question"}
    with pytest.raises(ValueError, match="not held out"):
        distiller(tmp_path / "none", prompts=prompts[2:3], exclusion=Exclusion([held])).run(10)


def test_a_prompt_that_the_template_refuses_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = [Prompt.ask(f"question {i}", "t") for i in range(5)]
    prompts.insert(2, Prompt(messages=(("system", "s"), ("user", "refused")), source="t"))
    run = distiller(tmp_path, prompts=tuple(prompts))
    run.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('no system messages') }}{% endif %}{{ m['content'] }}{% endfor %}"
    )
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        run.run(10**6)
    assert "1 prompts skipped" in caplog.text and "no system messages" in caplog.text
    assert len((tmp_path / "prompts-0000.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    one = Conversation(
        np.zeros(1, np.int32), np.zeros(2, np.int32), np.zeros((2, 4), dtype=np.float16)
    )
    before = os.umask(umask)
    try:
        write_shard(tmp_path / "one.safetensors", [one])
    finally:
        os.umask(before)
    assert (tmp_path / "one.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_model_writes_prompts_of_its_own() -> None:
    run_backend = torch_backend(tiny_directory(), batch=8, max_length=200)
    tokenizer = tiny().tokenizer
    found = list(self_prompts(run_backend, tokenizer, frozenset([END]), 60, 1))
    assert found == list(self_prompts(run_backend, tokenizer, frozenset([END]), 60, 1))
    for prompt in found:
        assert len(prompt.messages[0][1].split()) >= 3
        assert encode_prompt(tokenizer, TINY_VOCAB, prompt)[-1] != END


def test_shards_are_checked(tmp_path: Path) -> None:
    rows = np.ones((3, 4), np.float32)
    one = Conversation(np.arange(2, dtype=np.int32), np.arange(3, dtype=np.int32), to_float16(rows))
    write_shard(tmp_path / "a.safetensors", [one, one])
    first, second = read_shard(tmp_path / "a.safetensors")
    assert first.answer.tolist() == second.answer.tolist() == [0, 1, 2]
    damaged = tmp_path / "b.safetensors"
    damaged.write_bytes((tmp_path / "a.safetensors").read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"b\.safetensors: needs a shard"):
        read_shard(damaged)
    with pytest.raises(ValueError, match="65504"):
        to_float16(np.full((1, 2), 1e6, np.float32))
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match="needs a manifest"):
        Manifest.load(tmp_path)
