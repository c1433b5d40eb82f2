"""Training heads: the loss, the data, resuming, several processes, bad input."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import tiny_directory
from torch.nn import functional
from training_data import tiny_data

from medusa_ext.checkpoints import open_source
from medusa_ext.checkpoints.heads.load import load_heads
from medusa_ext.drafting.trees import Tree
from medusa_ext.files import only_writer
from medusa_ext.training.data.shards import Manifest, read_shard, write_shard
from medusa_ext.training.data.vocabulary import choose_vocabulary
from medusa_ext.training.heads import trainer as trainer_module
from medusa_ext.training.heads.dataset import load_dataset
from medusa_ext.training.heads.export import checkpoint_of
from medusa_ext.training.heads.runs import RunOptions, train
from medusa_ext.training.heads.settings import TrainSettings, preset
from medusa_ext.training.heads.stack import IGNORED, HeadStack, draft_loss, root_embedding
from medusa_ext.training.heads.trainer import Base, Trainer, TrainingError
from medusa_ext.training.processes import Processes
from medusa_ext.training.replay import TreeWalk, replay
from medusa_ext.training.torch_weights import vocabulary_matrices

SMALL = TrainSettings(
    kind="root",
    num_heads=2,
    epochs=2,
    batch=256,
    vocabulary=128,
    dropout=0.1,
    learning_rate=1e-3,
    dtype="float32",
)


def trainer_of(settings: TrainSettings, folder: Path | None = None) -> Trainer:
    """A trainer on the tiny model's data."""
    data = load_dataset(folder or tiny_data())
    rows = torch.from_numpy(data.rows(held_out=False))
    vocabulary = choose_vocabulary(data.tokens[rows].numpy(), 259, settings.vocabulary)
    base = Base(*vocabulary_matrices(open_source(tiny_directory())))
    return Trainer(settings, data, vocabulary, base, Processes())


def options(out: Path, data: Path | None = None) -> RunOptions:
    """Options for a quick run."""
    return RunOptions(data or tiny_data(), out, checkpoint_every=3, plots=False, storage="float32")


def copied_data(target: Path) -> Path:
    """The tiny data where a test may damage them."""
    shutil.copytree(tiny_data(), target)
    return target


@pytest.mark.parametrize("chunk", [3, 100])
@pytest.mark.parametrize("soft", [False, True])
def test_the_chunked_loss_and_its_gradients_are_cross_entropys(chunk: int, soft: bool) -> None:
    torch.manual_seed(0)
    y = torch.randn(11, 8, requires_grad=True)
    matrix = torch.randn(20, 8, requires_grad=True)
    targets = torch.randint(0, 20, (11,))
    targets[4] = IGNORED
    teacher = torch.randn(11, 8) if soft else None
    loss = draft_loss(y, matrix, targets, teacher, chunk) * 0.7
    got = torch.autograd.grad(loss, (y, matrix))
    logits = y @ matrix.T
    if teacher is None:
        expected = functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    else:
        goal = (teacher @ matrix.T).softmax(1).detach()
        rows = functional.cross_entropy(logits, goal, reduction="none")
        expected = rows[targets != IGNORED].sum()
    torch.testing.assert_close(loss, expected * 0.7)
    for one, other in zip(got, torch.autograd.grad(expected * 0.7, (y, matrix)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_heads_start_as_the_base_and_follow_their_formula() -> None:
    torch.manual_seed(0)
    heads = HeadStack("root", 3, 2, 8)
    x, e = torch.randn(5, 8), torch.randn(5, 8)
    start = heads(x, e, None, torch.float32)
    torch.testing.assert_close(start, x.expand(3, 5, 8))
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.normal_()
    found = heads(x, e, None, torch.float32)
    assert heads.root is not None
    for k in range(3):
        inner = x @ heads.weight[0, k].T + e @ heads.root[k].T + heads.bias[0, k]
        y = x + functional.silu(inner)
        y = y + functional.silu(y @ heads.weight[1, k].T + heads.bias[1, k])
        torch.testing.assert_close(found[k], y, rtol=1e-4, atol=1e-5)
    scaled = root_embedding(x, e)
    torch.testing.assert_close(scaled.square().mean(1), x.square().mean(1))


def test_targets_are_the_tokens_after_the_root_and_end_with_the_answer() -> None:
    data = load_dataset(tiny_data())
    targets = data.targets(3)
    for i in (0, 5, data.num_conversations - 1):
        first, last = int(data.starts[i]), int(data.starts[i + 1])
        answer = data.tokens[first:last].tolist()
        for j in range(len(answer)):
            wanted = [*answer[j + 1 : j + 4], IGNORED, IGNORED, IGNORED][:3]
            assert targets[first + j].tolist() == wanted
    rows = np.concatenate([data.rows(True), data.rows(False)])
    assert len(np.unique(rows)) == len(rows) == len(data.tokens) - data.num_conversations
    assert 0 < data.held_out.sum() < data.num_conversations / 5


def test_the_draft_vocabulary_is_the_most_frequent_tokens() -> None:
    tokens = np.array([5, 5, 5, 2, 2, 9, 7, 7, 7, 7], np.int32)
    found = choose_vocabulary(tokens, 12, 3)
    assert found.token_map.tolist() == [2, 5, 7] and found.coverage == pytest.approx(0.9)
    ids = found.draft_ids(torch.tensor([[7, 9], [2, IGNORED]]), 12)
    assert ids.tolist() == [[2, IGNORED], [0, IGNORED]]
    assert found.coverage_of(np.array([2, 3], np.int32)) == 0.5
    assert choose_vocabulary(tokens, 12, None).size == 12
    with pytest.raises(ValueError, match="1 to 12"):
        choose_vocabulary(tokens, 12, 13)


def test_replay_follows_the_ranks_through_the_tree() -> None:
    tree = Tree([(0,), (1,), (0, 2)])
    walk = TreeWalk(tree)
    assert [walk.accepted(r) for r in ((0, 2), (0, 1), (1, 2), (2, 0), (-1, 0))] == [2, 1, 1, 0, 0]
    # Seven tokens: steps of 3, 1 and, cut by the end, 2 of 3.
    ranks = np.full((7, 2), -1, np.int16)
    ranks[0], ranks[4] = (0, 2), (0, 2)
    assert replay(ranks, [7], tree) == pytest.approx(6 / 3)
    assert replay(np.concatenate([ranks, ranks]), [7, 7], tree) == pytest.approx(2.0)
    assert replay(ranks[:1], [1], tree) == 1.0


def test_training_learns_and_its_heads_are_saved(tmp_path: Path) -> None:
    settings = replace(SMALL, epochs=30, dropout=0.0, learning_rate=3e-3)
    facts = train(settings, replace(options(tmp_path), plots=True), Processes())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss_0"] for line in lines if "loss_0" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert lines[0]["coverage"] > 0.5 and lines[0]["answer_tokens"] >= 3000
    assert set(facts["tokens_per_step"]) == {"4", "8", "16", "32", "64"}
    assert len(facts["top"]) == 2 and facts["top"][0] == sorted(facts["top"][0])
    for name in ("loss", "accuracy", "tokens_per_step"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    heads = load_heads(tmp_path / "heads")
    assert (heads.kind, heads.num_heads, heads.layout) == ("root", 2, "v3")
    assert heads.token_map is not None and heads.token_map.shape == (128,)
    assert heads.base_fingerprint == load_dataset(tiny_data()).manifest.fingerprint
    assert float(heads.blocks[1][0].weight.abs().max()) > 0


def test_int8_heads_keep_their_values(tmp_path: Path) -> None:
    train(SMALL, options(tmp_path / "exact"), Processes())
    train(SMALL, replace(options(tmp_path / "small"), storage="int8"), Processes())
    exact, small = (load_heads(tmp_path / n / "heads") for n in ("exact", "small"))
    for k in range(2):
        true, found = exact.blocks[k][0].weight, small.blocks[k][0].weight
        step = true.abs().amax(1, keepdim=True) / 127
        assert bool(((true - found).abs() <= 0.5001 * step).all())


def test_two_runs_into_one_directory_are_refused(tmp_path: Path) -> None:
    with only_writer(tmp_path / "out"):
        with pytest.raises(OSError, match="out: needs to be written by one run at a time"):
            train(SMALL, options(tmp_path / "out"), Processes())
        with only_writer(tmp_path / "other"):
            pass
    assert list((tmp_path / "out").iterdir()) == []
    with only_writer(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    ("name", "value"), [("WORLD_SIZE", "two"), ("WORLD_SIZE", "0"), ("RANK", "-1"), ("RANK", "1.5")]
)
def test_variables_of_torchrun_are_checked(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"{name}: needs a whole number .* got '{value}'"):
        Processes()
    monkeypatch.setenv(name, "")
    assert (Processes().size, Processes().rank) == (1, 0)


def test_a_killed_run_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(SMALL, options(tmp_path / "whole"), Processes())
    step = Trainer.train_step
    calls = 0

    def dies(self: Trainer) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 11:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer_module.Trainer, "train_step", dies)
        train(SMALL, options(tmp_path / "killed"), Processes())
    assert not (tmp_path / "killed" / "heads").exists()
    train(SMALL, options(tmp_path / "killed"), Processes())
    files = [
        tmp_path / name / "heads" / "medusa_lm_head.safetensors" for name in ("whole", "killed")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)]
    assert steps == sorted(set(steps))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    trainer = trainer_of(SMALL)
    trainer.save(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"same settings.*seed"):
        trainer_of(replace(SMALL, seed=1)).load(tmp_path / "checkpoint.pt")
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes((tmp_path / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged\.pt: needs a checkpoint"):
        trainer.load(damaged)


def test_a_batch_that_is_not_finite_is_named(tmp_path: Path) -> None:
    folder = copied_data(tmp_path / "data")
    name = Manifest.load(folder).shards[0].name
    conversations = read_shard(folder / name)
    conversations[2].hidden[4, 7] = np.nan
    write_shard(folder / name, conversations)
    trainer = trainer_of(SMALL, folder)
    with pytest.raises(TrainingError, match=rf"step \d+: .*{name}, conversation 2, token 4"):
        trainer.run()
    assert all(bool(torch.isfinite(p).all()) for p in trainer.parameters)


def test_a_disk_that_fills_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    trainer = trainer_of(SMALL)
    path = tmp_path / "checkpoint.pt"
    trainer.save(path)
    old = path.read_bytes()
    trainer.train_step()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, limits[1]))
    try:
        with pytest.raises((OSError, RuntimeError)):
            trainer.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_data_of_another_model_and_empty_data_are_refused(tmp_path: Path) -> None:
    other = replace(options(tmp_path / "a"), model=str(tiny_directory("qwen2")))
    with pytest.raises(ValueError, match=r"needs data of the base .*fingerprint"):
        train(SMALL, other, Processes())
    empty = tmp_path / "empty"
    replace(Manifest.load(tiny_data()), shards=[]).save(empty)
    with pytest.raises(ValueError, match="at least one finished shard"):
        train(SMALL, options(tmp_path / "b", empty), Processes())
    with pytest.raises(FileNotFoundError, match="made by distill"):
        train(SMALL, options(tmp_path / "c", tmp_path / "nothing"), Processes())


def test_data_that_do_not_fit_into_memory_are_refused(tmp_path: Path) -> None:
    folder = copied_data(tmp_path / "data")
    manifest = Manifest.load(folder)
    huge = [replace(shard, tokens=10**13) for shard in manifest.shards]
    replace(manifest, shards=huge).save(folder)
    with pytest.raises(MemoryError, match="GiB of memory"):
        load_dataset(folder)


@pytest.mark.parametrize(
    "changes",
    [{"kind": "medusa"}, {"own_lm_head": True}, {"num_layers": 2}, {"targets": "soft"}],
    ids=str,
)
def test_every_kind_of_head_trains(changes: dict[str, object], tmp_path: Path) -> None:
    trainer = trainer_of(replace(SMALL, epochs=4, learning_rate=3e-3, **changes))  # type: ignore[arg-type]
    first = trainer.train_step()["loss"]
    trainer.run()
    trainer.step = 0  # the first batch and its dropout again
    assert trainer.train_step()["loss"] < first
    heads = checkpoint_of(trainer, tmp_path, open_source(tiny_directory()))
    assert heads.num_layers == trainer.settings.num_layers
    assert (heads.lm_heads is not None) == trainer.settings.own_lm_head
    assert (heads.root_weights is None) == (trainer.settings.kind == "medusa")


def test_settings_are_checked() -> None:
    assert preset("reference").num_heads == 5 and preset("root", epochs=1.0).epochs == 1.0
    with pytest.raises(ValueError, match="preset"):
        preset("none")
    for changes in ({"kind": "hydra"}, {"batch": 0}, {"dropout": 1.0}, {"warmup": 2.0}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            TrainSettings(**changes)


def test_two_processes_give_one_processs_weights(tmp_path: Path) -> None:
    def command(out: str, launcher: list[str]) -> None:
        arguments = ["-m", "medusa_ext", "train", str(tiny_data()), str(tmp_path / out)]
        arguments += ["--num-heads", "2", "--epochs", "1.5", "--batch", "255", "--threads", "1"]
        arguments += ["--vocabulary", "128", "--dropout", "0.1", "--dtype", "float32"]
        arguments += ["--storage", "float32", "--no-plots", "--clip", "0.5"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *launcher, *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    command("one", [])
    command("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"])
    one, two = (load_heads(tmp_path / name / "heads") for name in ("one", "two"))
    for (name, a), (_, b) in zip(one.tensors(), two.tensors(), strict=True):
        assert float((a - b).abs().max()) < 2e-5, name
    assert float(one.blocks[0][0].weight.abs().max()) > 1e-3
