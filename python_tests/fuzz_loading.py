"""Feeds damaged files to everything that loads: `python fuzz_loading.py --cases 20000 --seed 1`.

Each case damages one file of a small valid checkpoint (bytes flipped, cut at any place, counts
made huge, JSON values replaced, pickles with code in them), loads it and, if that works, packs it
with the native module and decodes a few tokens with it. It must load, or fail
with a ValueError or OSError that names the file; anything else, a hang, a crash or a jump in
memory, is reported with the seed that repeats it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gguf
import numpy as np
import torch
from loading_models import tiny_model, write_gguf
from models import TEMPLATE, byte_tokenizer
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from medusa_ext import _C, files
from medusa_ext.checkpoints import (
    check_against_base,
    iter_weights,
    load_heads,
    load_tokenizer,
    open_source,
)
from medusa_ext.checkpoints.heads.checkpoint import HeadsCheckpoint
from medusa_ext.checkpoints.packing import build_heads, build_model, choose_formats
from medusa_ext.checkpoints.source import ModelSource
from medusa_ext.drafting.trees import Tree
from medusa_ext.text.chat import encode_chat

CASE_SECONDS = 20
MAX_GROWTH_BYTES = 400 << 20
HIDDEN, VOCAB = 64, 96
BAD_VALUES: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 3, 1 << 31, 1 << 40, 1 << 62, 1 << 64, 10**400, -(1 << 63), 0.5, 1e308),
    *("", "x", "\ud83d", "llama", None, True, False, [], {}, [1, 2], [[]], {"a": []}, float("nan")),
    *(float("inf"), ["x"] * 50, [-5], "9" * 50),
)
BAD_WORDS = (0, 1, 2, 31, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1)


def main() -> int:
    """Runs the cases and prints a summary; 1 if any of them was not handled cleanly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        patch.object(files, "_CACHE", Path(folder) / "cache"),
    ):
        templates = make_templates(Path(folder) / "templates")
        failures, outcomes = run(options.cases, options.seed, templates, Path(folder))
    for failure in failures[:20]:
        print(failure)
    print(f"{options.cases} cases, seed {options.seed}: {dict(outcomes)}, failures {len(failures)}")
    return 1 if failures else 0


def run(
    cases: int, seed: int, templates: dict[str, Path], folder: Path
) -> tuple[list[str], Counter[str]]:
    """Runs cases; returns what was not handled cleanly, and how often each outcome occurred."""
    for template in templates.values():  # what an undamaged load needs is not growth
        exercise(template, tokenizer=True)
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + MAX_GROWTH_BYTES
    failures: list[str] = []
    outcomes: Counter[str] = Counter()
    canary = folder / "code-was-run"
    for number in range(cases):
        rng = random.Random(f"{seed}/{number}")
        kind = rng.choice(sorted(templates))
        path = rng.choice(sorted(p for p in templates[kind].rglob("*") if p.is_file()))
        original = path.read_bytes()
        path.unlink()  # the new file is another one: an old mapping must not see the damage
        path.write_bytes(original)
        what = f"{path.name}, {damage(rng, path, canary)}"
        label = f"seed {seed} case {number} ({kind}: {what})"
        faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
        problem, outcome = attempt(templates[kind], rng)
        faulthandler.cancel_dump_traceback_later()
        path.unlink()
        path.write_bytes(original)
        outcomes[f"{kind} {outcome}"] += 1
        if problem:
            failures.append(f"{label}: {problem}")
        if canary.exists():
            failures.append(f"{label}: code in the file was run")
            canary.unlink()
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > limit:
            failures.append(f"{label}: memory grew by more than {MAX_GROWTH_BYTES >> 20} MiB")
            break
    return failures, outcomes


def attempt(case: Path, rng: random.Random) -> tuple[str, str]:
    """Loads a damaged checkpoint: (what is wrong about how that went, or "", its outcome)."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            exercise(case, tokenizer=rng.random() < 0.2)
    except (ValueError, OSError) as error:
        named = str(case) in str(error)
        return ("" if named else f"no file named in {type(error).__name__}: {error}"), "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {error}", "failed"
    return "", "loaded"


def exercise(directory: Path, tokenizer: bool = False) -> None:
    """Loads everything a checkpoint directory holds, reads every value and decodes with it."""
    source = heads = None
    if any(directory.glob("*.gguf")) or (directory / "base").exists():
        source = open_source(directory / "base" if (directory / "base").exists() else directory)
        assert source.fingerprint
        for _, weight in iter_weights(source):
            for start, stop in weight.chunks(1 << 14):
                weight.rows(start, stop)
                weight.to_float(start, stop)
        if (tokenizer and source.gguf is not None) or has_tokenizer(directory):
            use_tokenizer(source)
    if (directory / "heads").exists():
        heads = load_heads(directory / "heads")
        for _, tensor in heads.tensors():
            tensor.float().sum()
        # Heads come without a base of their own here: they get an undamaged one.
        source = open_source(directory.parent / "safetensors" / "base")
        check_against_base(heads, source.config)
    if source is not None:
        decode(source, heads)


def has_tokenizer(directory: Path) -> bool:
    return (directory / "base" / "tokenizer_config.json").exists()


def use_tokenizer(source: ModelSource) -> None:
    """Loads it and encodes a conversation, which its template may refuse."""
    tokenizer = load_tokenizer(source)
    try:
        encode_chat(tokenizer, [{"role": "user", "content": "hi"}])
    except ValueError as error:
        if not str(error).startswith("prompt: "):
            raise


def decode(source: ModelSource, heads: HeadsCheckpoint | None) -> None:
    """Packs a model as it is stored and its heads, and takes a few steps with drafts."""
    native = build_model(source, choose_formats(source, "auto"), "cpu")
    try:
        take_steps(native, source, heads)
    except RuntimeError as error:  # finite weights that lead to other numbers
        if not str(error).startswith("logits: need finite numbers"):
            raise


def take_steps(native: _C.Model, source: ModelSource, heads: HeadsCheckpoint | None) -> None:
    """A prompt and two steps with drafts."""
    vocab = source.config.vocab_size
    session = _C.Session(native, 1, 12, 8, "float32")
    root = session.prefill(0, np.arange(5, dtype=np.int32) % vocab)
    native_heads = build_heads(native, heads, source, "auto") if heads is not None else None
    # A renamed tensor may leave a single head.
    tree = Tree([[0], [1], [0, 0]] if heads is not None and heads.num_heads > 1 else [[0], [1]])
    for _ in range(2):
        session.begin_step()
        if native_heads is not None:
            session.draft_heads(native_heads, tree.native)
        else:
            session.set_tree(0, np.array([root, 1, 0], np.int32), np.array([-1, 0, 1], np.int32))
        session.verify()
        session.accept()
        session.compact()
        session.check_finite()
        root = session.roots[0]
        # Whatever the weights are, a token is one of the vocabulary.
        assert 0 <= root < vocab, root


def make_templates(folder: Path) -> dict[str, Path]:
    """Valid small checkpoints of each kind."""
    model = tiny_model("llama", num_hidden_layers=1)
    makers: dict[str, Callable[[Path], None]] = {
        "gguf": lambda place: _make_gguf(place, model),
        "safetensors": lambda place: model.save_pretrained(place / "base"),
        "sharded": lambda place: model.save_pretrained(place / "base", max_shard_size="60KB"),
        "bin": lambda place: _make_bin(place, model),
        "tokenizer": lambda place: _make_tokenizer(place, model),
        "heads-v0.1": lambda place: _make_heads(place, "{h}.0.linear.{f}", "{h}.1.weight", {}),
        "heads-v2": lambda place: _make_heads(place, "{h}.0.linear.{f}", "", {"version": "2"}),
        "heads-v3": _make_v3,
        "heads-pt": lambda place: _make_heads(
            place, "{h}.0.linear.{f}", "{h}.1.weight", {"medusa_num_heads": 2}, pickled=True
        ),
        "heads-vllm": lambda place: _make_heads(
            place,
            "blocks.{h}.layers.0.{f}",
            "lm_heads.{h}.weight",
            {"architectures": ["MedusaModel"], "num_heads": 2, "vocab_size": VOCAB},
        ),
    }
    templates: dict[str, Path] = {}
    for kind, make in makers.items():
        place = folder / kind
        place.mkdir(parents=True)
        make(place)
        templates[kind] = place
    return templates


def _make_gguf(place: Path, model: Any) -> None:
    types = gguf.GGMLQuantizationType
    mixed = {"attn_q": types.Q4_0, "attn_v": types.Q4_1, "ffn_up": types.Q5_0, "down": types.BF16}
    path = place / "model.gguf"
    write_gguf(path, model, mixed, rope_freqs=np.ones(8), tokens=VOCAB)


def _make_tokenizer(place: Path, model: Any) -> None:
    model.save_pretrained(place / "base")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer())
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(place / "base")


def _make_bin(place: Path, model: Any) -> None:
    (place / "base").mkdir()
    model.config.save_pretrained(place / "base")
    torch.save(dict(model.state_dict()), place / "base" / "pytorch_model.bin")


def _make_heads(
    place: Path, block: str, lm_head: str, config: dict[str, Any], pickled: bool = False
) -> None:
    torch.manual_seed(1)
    tensors = {}
    for h in range(2):
        tensors[block.format(h=h, f="weight")] = torch.randn(HIDDEN, HIDDEN)
        tensors[block.format(h=h, f="bias")] = torch.randn(HIDDEN)
        if lm_head:
            tensors[lm_head.format(h=h)] = torch.randn(VOCAB, HIDDEN)
    target = place / "heads"
    target.mkdir()
    (target / "config.json").write_text(json.dumps(config | {"hidden_size": HIDDEN}))
    if pickled:
        torch.save(tensors, target / "medusa_lm_head.pt")
    else:
        save_file(tensors, target / "medusa_lm_head.safetensors")


def _make_v3(place: Path) -> None:
    _make_heads(place, "{h}.0.linear.{f}", "", {"version": "3", "kind": "root"})
    path = place / "heads" / "medusa_lm_head.safetensors"
    from safetensors.torch import load_file

    tensors = load_file(path)
    for name in [n for n in tensors if n.endswith("weight")]:
        tensors[name] = tensors[name].to(torch.int8)
        tensors[name + "_scale"] = torch.ones(HIDDEN)
    for h in range(2):
        tensors[f"{h}.root.weight"] = torch.randn(HIDDEN, HIDDEN)
    tensors["lm_head.weight"] = torch.randn(10, HIDDEN)
    tensors["token_map"] = torch.arange(10, dtype=torch.int32)
    tensors["rank_traces"] = torch.ones(5, 2, dtype=torch.int16)
    tensors["adapters.layers.0.q.down"] = torch.ones(2, HIDDEN)
    tensors["adapters.layers.0.q.up"] = torch.ones(HIDDEN, 2)
    save_file(tensors, path)


def damage(rng: random.Random, path: Path, canary: Path) -> str:
    """Damages a file; returns what was done."""
    if path.suffix == ".json" and rng.random() < 0.7:
        return damage_json(rng, path)
    if path.suffix == ".safetensors" and rng.random() < 0.5:
        return damage_safetensors_header(rng, path)
    if path.suffix in (".pt", ".bin") and rng.random() < 0.6:
        return damage_pickle(rng, path, canary)
    content = bytearray(path.read_bytes())
    done = [damage_bytes(rng, content) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
    path.write_bytes(content)
    return ", ".join(done)


def damage_bytes(rng: random.Random, content: bytearray) -> str:
    """One change of raw bytes, in the header more often than not."""
    if not content:
        return "nothing"
    span = len(content) if rng.random() < 0.3 else min(len(content), rng.choice((64, 1024, 8192)))
    at = rng.randrange(span)
    action = rng.choice(("cut", "flip", "byte", "word32", "word64", "zero", "drop", "insert"))
    if action == "cut":
        del content[at:]
    elif action == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif action == "byte":
        content[at] = rng.randrange(256)
    elif action == "word32":
        content[at : at + 4] = struct.pack("<I", rng.choice(BAD_WORDS) & 0xFFFFFFFF)
    elif action == "word64":
        content[at : at + 8] = struct.pack("<Q", rng.choice(BAD_WORDS))
    elif action == "zero":
        size = rng.randrange(1, 64)
        content[at : at + size] = bytes(len(content[at : at + size]))
    elif action == "drop":
        del content[at : at + rng.randrange(1, 64)]
    else:
        content[at:at] = rng.randbytes(rng.randrange(1, 64))
    return f"{action} at {at}"


def damage_json(rng: random.Random, path: Path) -> str:
    """One value of a JSON object replaced, removed, or put under another key."""
    value = json.loads(path.read_text())
    what = _damage_object(rng, value)
    path.write_text(json.dumps(value))
    return what


def _damage_object(rng: random.Random, value: dict[str, Any]) -> str:
    if not value:
        return "nothing"
    key = rng.choice(sorted(value))
    nested = value[key]
    if isinstance(nested, dict) and nested and rng.random() < 0.7:
        return f"{key}.{_damage_object(rng, nested)}"
    action = rng.choice(("replace", "replace", "replace", "remove", "rename"))
    if action == "remove":
        del value[key]
    elif action == "rename":
        value[rng.choice(("version", "medusa", "layer_types", "rope_scaling", "kind"))] = nested
    else:
        value[key] = rng.choice(BAD_VALUES)
        action = f"replace by {str(value[key])[:40]!r}"
    return f"{key}: {action}"


def damage_safetensors_header(rng: random.Random, path: Path) -> str:
    """The header's JSON damaged, and its length put right again."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    name = rng.choice(sorted(header))
    entry = header[name]
    action = rng.choice(("dtype", "shape", "offsets", "name", "object"))
    if action == "dtype" and "dtype" in entry:
        entry["dtype"] = rng.choice(("F64", "F16", "I64", "BOOL", "F8_E4M3", "F4", "nonsense", 3))
    elif action == "shape" and "shape" in entry:
        entry["shape"] = rng.choice(([], [0], [-1, 4], [1 << 62, 1 << 62], [64], [4096], [1] * 200))
    elif action == "offsets" and "data_offsets" in entry:
        entry["data_offsets"] = rng.choice(([0, 1 << 62], [5, 1], [-8, 8], [0], ["a", "b"]))
    elif action == "name":
        header[rng.choice(("0.0.linear.weight", "x", "9.9.weight", "token_map"))] = entry
    else:
        _damage_object(rng, header)
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + content[8 + length :])
    return f"header of {name}: {action}"


class _Code:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = (call, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def damage_pickle(rng: random.Random, path: Path, canary: Path) -> str:
    """The pickle inside a torch archive damaged or replaced; the archive itself stays valid."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(n for n in members if n.endswith("data.pkl"))
    action = rng.choice(("bytes", "bytes", "code", "objects"))
    if action == "bytes":
        content = bytearray(members[name])
        damage_bytes(rng, content)
        members[name] = bytes(content)
    elif action == "code":
        calls = (
            _Code(os.system, f"touch {canary}"),
            _Code(eval, f"open({str(canary)!r}, 'w')"),
            _Code(Path.touch, canary),
            _Code(exec, f"open({str(canary)!r}, 'w')"),
            _Code(bytearray, 1 << 34),
        )
        members[name] = pickle.dumps({"0.0.linear.weight": rng.choice(calls)}, protocol=2)
    else:
        members[name] = pickle.dumps({"0.0.linear.weight": rng.choice(BAD_VALUES)}, protocol=2)
    if rng.random() < 0.2:
        del members[rng.choice(sorted(members))]
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return f"pickle: {action}"


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.1f} s")
    sys.exit(status)
