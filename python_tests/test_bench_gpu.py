"""The GPU benchmark's dry run: the same code at toy size on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.__main__ import main
from benchmarks.gpu_decoding import TOY, ReplayedTree, SyntheticModel
from benchmarks.gpu_kernels import tree_mask
from medusa_ext.drafting.published import published_accuracies
from medusa_ext.drafting.trees import nested_from_accuracies


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("gpu")
    assert main(["gpu", "--toy", "--output", str(folder)]) == 0
    found: dict[str, Any] = json.loads((folder / "gpu.json").read_text())
    return found


def test_the_dry_run_measures_every_section(report: dict[str, Any]) -> None:
    assert report["toy"] is True
    assert report["attention"][0]["max_error"] < 1e-5
    assert report["compact"][0]["is_exact"] is True
    assert [row["num_nodes"] for row in report["decoding"]] == [1, 4, 16]
    assert [row["replayed"] for row in report["decoding"]] == [False, True, True]
    assert all(row["divergences"] == 0 for row in report["decoding"])
    assert report["decoding"][0]["tokens_per_step"] == 1.0
    assert all(row["bandwidth_share"] > 0 for row in report["decoding"])


def test_the_summary_says_replay(report: dict[str, Any]) -> None:
    lines = gpu.summary(report).splitlines()
    assert sum("acceptance replay of published accuracies" in line for line in lines) == 2
    assert sum("SDPA with a mask" in line for line in lines) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"tests": {"passed": False, "summary": "1 failed"}},
        {"attention": [{"max_error": 0.5}]},
        {"compact": [{"is_exact": False}]},
    ],
)
def test_wrong_results_are_a_failure(report: dict[str, Any], wrong: dict[str, Any]) -> None:
    assert gpu.is_sound(report)
    assert not gpu.is_sound(report | wrong)


def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert main(["gpu"]) == 2
    assert "CUDA" in capsys.readouterr().out


def test_replayed_trees_accept_as_published() -> None:
    accuracies = published_accuracies()
    trees = nested_from_accuracies(accuracies)
    tree = trees.tree(16)
    replay = ReplayedTree(tree, accuracies, seed=3)
    truth = [100, 200, 300, 400, 450]
    total = 0
    rounds = 4000
    for _ in range(rounds):
        tokens = replay.tokens(7, truth, 512)
        node, depth = 0, 0
        while True:
            children = [
                child
                for child, parent in enumerate(replay.parents)
                if parent == node and child > 0 and tokens[child] == truth[depth]
            ]
            if not children:
                break
            assert len(children) == 1
            node, depth = children[0], depth + 1
            if depth == len(truth):
                break
        total += depth + 1
    # The mean's standard error is below 0.02.
    assert total / rounds == pytest.approx(trees.expected_tokens(16), abs=0.06)


def test_the_synthetic_model_follows_its_permutation() -> None:
    from medusa_ext import _C

    model = SyntheticModel(TOY, "cpu", "float32")
    session = _C.Session(model.native, 1, 64, 4, "float32")
    first = session.prefill(0, np.arange(20, dtype=np.int32))
    assert first == model.continuation(19, 1)[0]
    tokens = []
    for _ in range(8):
        session.begin_step()
        session.verify()
        session.accept()
        session.compact()
        tokens += session.emitted(0)
    assert tokens == model.continuation(first, 8)


def test_tree_mask() -> None:
    parents = torch.tensor([[-1, 0, 0, 2, -1]], dtype=torch.int32)
    mask = tree_mask(parents, 2)
    expected = ["1110000", "1111000", "1110100", "1110110", "1100001"]
    assert ["".join("01"[int(value)] for value in row) for row in mask] == expected
