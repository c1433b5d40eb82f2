"""The command line: output, errors, interruptions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from models import tiny, tiny_directory, tiny_heads

from medusa_ext import generate
from medusa_ext.checkpoints.heads import resolve
from medusa_ext.cli import chat
from medusa_ext.cli.main import build_parser, main
from medusa_ext.cli.options import decoding_options
from medusa_ext.files import only_writer

PROMPT = "hello hello"


pytestmark = pytest.mark.usefixtures("cache")


def model_options(**options: Any) -> list[str]:
    return ["--model", str(tiny_directory()), "--heads", "none", "--dtype", "float32"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


COMMANDS = ["generate", "chat", "bench", "tune", "tree", "convert", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"medusa-ext {command}" in capsys.readouterr().out


def test_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_generate(capsys: pytest.CaptureFixture[str]) -> None:
    expected = generate(tiny(), PROMPT, 12, tree=None)
    options = ["--max-new-tokens", "12", *model_options()]
    assert run(capsys, "generate", PROMPT, *options) == (0, expected.text + "\n", "")
    assert run(capsys, "generate", PROMPT, "--stream", *options)[1] == expected.text + "\n"
    code, out, _ = run(capsys, "generate", PROMPT, "--json", "--tree", "none", *options)
    found = json.loads(out)
    assert code == 0 and set(found) == set(expected.to_json())
    for field in ("text", "tokens", "finish_reason", "seed"):
        assert found[field] == expected.to_json()[field]
    _, _, err = run(capsys, "generate", PROMPT, "--profile", *options)
    assert "verify " in err and "tree_attention " in err
    _, _, err = run(capsys, "generate", PROMPT, "--stats", "--tree", "4", *options)
    assert "12 tokens (length)" in err and "tokens/step, draft lookup" in err


def test_generate_reads_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT))
    expected = generate(tiny(), PROMPT, 5, tree=None)
    options = ["--max-new-tokens", "5", *model_options()]
    assert run(capsys, "generate", *options)[1] == expected.text + "\n"


def test_generate_chat_and_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": PROMPT}]
    expected = generate(tiny(), messages, 9, temperature=0.7, top_k=9, top_p=0.9, seed=3)
    options = ["--max-new-tokens", "9", "--temperature", "0.7", "--top-k", "9", "--top-p", "0.9"]
    arguments = ["--chat", "--system", "be", "--seed", "3", *options, *model_options()]
    assert run(capsys, "generate", PROMPT, *arguments)[1] == expected.text + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/such/place"], "no/such/place"),
        (["--tree", "tall"], "--tree: needs auto, none, a number or a JSON file, got 'tall'"),
        (["--max-new-tokens", "0"], "max_new_tokens: needs an integer"),
        (["--temperature", "-1"], "temperature: needs a number"),
        (["--stream", "--json"], "--stream: needs to stand without --json"),
        (["--system", "x"], "--system: needs --chat"),
        (["--draft", "heads"], "draft: needs heads"),
        (["--threads", "0"], "threads"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "generate", PROMPT, *model_options(), *arguments)
    assert code == 2 and out == ""
    assert err.startswith("medusa-ext generate: error: ") and err.count("\n") == 1
    assert message in err


NUMBERS = {
    "bench": ["--max-new-tokens 0", "--rounds -1", "--threads 0"],
    "calibrate x": ["--nodes 4 0", "--nodes 1025", "--ranks 33", "--batch 0", "--seed -1"],
    "chat": ["--max-length 0", "--threads x"],
    "distill x": ["--tokens 0", "--temperature nan", "--self-share 1.5", "--max-new-tokens 3"],
    "train x y": ["--epochs 0", "--learning-rate inf", "--warmup -0.1", "--checkpoint-every -1"],
    "tree": ["--nodes 0", "--nodes 1025", "--depth 0", "--random x"],
}


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(command, arguments) for command, every in NUMBERS.items() for arguments in every],
)
def test_numbers_out_of_range_are_named_before_anything_is_done(
    command: str, arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *command.split(), *arguments.split())
    option, *_, value = arguments.split()
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith(f"medusa-ext {command.split()[0]}: error: {option}: ")
    assert f"'{value}'" in err


def test_numbers_in_range_are_taken() -> None:
    line = "train x y --epochs 0.5 --warmup 1 --weight-decay 0 --seed 0 --vocabulary 0"
    args = build_parser().parse_args(line.split())
    assert (args.epochs, args.warmup, args.weight_decay, args.vocabulary) == (0.5, 1.0, 0.0, 0)
    args = build_parser().parse_args("calibrate x --nodes 1 1024 --ranks 32".split())
    assert args.nodes == [1, 1024] and args.ranks == 32


@pytest.mark.parametrize(
    ("given", "meant"),
    [(r"\n", "\n"), (r"a\tb", "a\tb"), (r"\\n", r"\n"), (r"\d", r"\d"), ("\\", "\\"), ("é", "é")],
)
def test_stop_texts_are_read_as_they_are_meant(given: str, meant: str) -> None:
    args = build_parser().parse_args(["generate", "x", "--stop", given])
    assert decoding_options(args)["stop"] == [meant]


def test_empty_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "generate", "", *model_options())
    assert code == 2 and "prompt: needs at least one token" in err


def test_tree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "tree", "--nodes", "5", "--ascii")
    assert code == 0 and out.startswith("root\n|- 0\n") and "5 nodes, depth 2, 1." in out
    saved = tmp_path / "tree.json"
    assert run(capsys, "tree", "--nodes", "5", "--out", str(saved))[0] == 0
    assert run(capsys, "tree", str(saved), "--ascii")[1].startswith(out[: out.rindex("\n5 nodes")])
    assert run(capsys, "tree", "--random", "1", "--out", str(tmp_path / "t.svg"))[0] == 0
    assert (tmp_path / "t.svg").read_text().startswith("<svg")
    calibrated = str(tiny_heads(traces=True))
    assert "in its calibration" in run(capsys, "tree", "--heads", calibrated)[1]
    saved.write_text("[[0], [1, 1]]")
    code, _, err = run(capsys, "tree", str(saved))
    assert code == 2 and "needs its prefix [1]" in err and str(saved) in err
    assert run(capsys, "tree", "--nodes", "0")[0] == 2


def test_generate_with_a_tree_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    path.write_text("[[0], [1], [0, 0]]")
    options = ["--model", str(tiny_directory()), "--heads", str(tiny_heads()), "--stats"]
    code, out, err = run(
        capsys, "generate", PROMPT, "--tree", str(path), "--max-new-tokens", "9", *options
    )
    assert code == 0 and "draft both" in err
    assert out == generate(tiny(), PROMPT, 9, tree=None).text + "\n"


def test_convert(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source, out = str(tiny_heads()), str(tmp_path / "v2")
    assert run(capsys, "convert", source, out, "--to", "v2")[:2] == (0, out + "\n")
    assert json.loads((tmp_path / "v2" / "config.json").read_text())["version"] == "2"
    code, _, err = run(capsys, "convert", source, str(tmp_path / "v1"), "--to", "v0.1")
    assert code == 2 and "base_lm_head" in err
    base = ["--base", str(tiny_directory())]
    assert run(capsys, "convert", source, str(tmp_path / "v1"), "--to", "v0.1", *base)[0] == 0
    code, _, err = run(capsys, "convert", str(tiny_heads("root")), out, "--to", "v2")
    assert code == 2 and err.count("\n") == 1


def test_packaged_heads_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "packaged"
    monkeypatch.setattr(resolve, "PACKAGED_HEADS", packaged)
    shutil.copytree(tiny_heads(), packaged / "base" / "named")
    out = str(tmp_path / "v2")
    assert run(capsys, "convert", "named", out, "--to", "v2")[:2] == (0, out + "\n")
    code, shown, _ = run(capsys, "tree", "--heads", "named", "--nodes", "4")
    assert code == 0 and "4 nodes" in shown
    shutil.copytree(tiny_heads(), packaged / "other" / "named")
    code, _, err = run(capsys, "convert", "named", out, "--to", "v2")
    assert code == 2 and "base, other all have some" in err
    code, _, err = run(capsys, "convert", "unknown", out, "--to", "v2")
    assert code == 2 and "unknown" in err


def test_distill_refuses_a_directory_that_is_written_to(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with only_writer(tmp_path):
        code, _, err = run(capsys, "distill", str(tmp_path))
    assert code == 2 and f"{tmp_path}: needs to be written by one run at a time" in err
    assert list(tmp_path.iterdir()) == []


def test_tune_measures_and_keeps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "tune", *model_options())
    assert code == 0 and out.splitlines()[1].split()[0] == "1"
    kept = list((tmp_path / "cache" / "costs").glob("*.json"))
    assert len(kept) == 1
    # Another run finds what was kept.
    before = kept[0].read_text()
    assert run(capsys, "generate", PROMPT, "--max-new-tokens", "3", *model_options())[0] == 0
    assert [p.read_text() for p in (tmp_path / "cache" / "costs").glob("*.json")] == [before]


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--quick", "--max-new-tokens", "8", "--rounds", "1", "--tree", "4", *model_options()]
    code, out, _ = run(capsys, "bench", "--limits", *options)
    assert code == 0 and "the same tokens" in out and "GB/s" in out
    report = json.loads(run(capsys, "bench", "--json", *options)[1])
    assert report["same_tokens"] is True and report["speedup"] > 0
    assert set(report["sides"]) == {"plain", "drafted"}
    assert report["sides"]["plain"]["tokens_per_step"] == 1.0


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and "medusa_ext" in out and "torch" in out


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The program as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "medusa_ext", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        **options,
    )


def test_chat_keeps_the_conversation() -> None:
    options = ["--max-new-tokens", "6", "--ignore-eos", "--max-length", "250"]
    process = start("chat", *options, *model_options())
    out, err = process.communicate("hi\n/help\nhi again\n/reset\nhi\n/quit\n", timeout=300)
    assert process.returncode == 0, err
    model, text = tiny(), []
    history: list[dict[str, str]] = []
    for message in ("hi", "hi again"):
        history.append({"role": "user", "content": message})
        answer = generate(model, history, 6, ignore_eos=True).text
        history.append({"role": "assistant", "content": answer})
        text.append(answer)
    assert out == "".join(f"{answer}\n" for answer in [*text, text[0]])
    assert err.count("tokens/s,") == 3 and "/reset starts anew" in err


def test_chat_survives_an_interruption() -> None:
    """Ctrl-C ends an answer; the next message is answered."""
    process = start("chat", "--max-new-tokens", "100000", "--ignore-eos", *model_options())
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write("hi\n")
    process.stdin.flush()
    assert process.stdout.read(1)
    # The tiny model's cache is full after 256 tokens: a message then answers anew.
    process.send_signal(signal.SIGINT)
    process.stdin.write("/reset\n")
    process.stdin.flush()
    _, err = process.communicate("ho\n", timeout=300)
    assert process.returncode == 0, err
    assert "interrupted" in err or "(cache)" in err
    assert "Traceback" not in err and err.count("tokens/s,") >= 1


def test_an_interrupted_answer_stays_in_the_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C after a few pieces: what was said is part of the history, the session goes on."""
    session = tiny().session(max_length=250)
    options = {"max_new_tokens": 30, "ignore_eos": True}
    history: list[dict[str, str]] = []
    shown = 0

    def interrupted(*values: object, **_: object) -> None:
        nonlocal shown
        shown += 1
        if shown == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chat, "print", interrupted, raising=False)
        chat._answer(session, history, "hi", options)
    whole = generate(tiny(), history[:1], 30, ignore_eos=True).text
    spoken = history[1]["content"]
    assert 0 < len(spoken) < len(whole) and whole.startswith(spoken)
    capsys.readouterr()
    chat._answer(session, history, "go on", options)
    answer = generate(tiny(), history[:3], 30, ignore_eos=True).text
    assert capsys.readouterr().out == answer + "\n" and history[3]["content"] == answer


def test_broken_pipe_is_quiet() -> None:
    process = start("generate", PROMPT, "--stream", "--ignore-eos", *model_options())
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=60)
    assert "Traceback" not in err and "Exception" not in err
