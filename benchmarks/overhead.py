"""What comes on top of forwards and weights: a step's time outside its forward, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from medusa_ext.api import generate, load
from medusa_ext.engine.model import Model
from medusa_ext.engine.results import PHASES

from .rows import Row, interleaved
from .setting import Setting

_OUTSIDE: Final = tuple(phase for phase in PHASES if phase not in ("prefill", "verify"))


def measure_overhead(setting: Setting) -> Iterator[Row]:
    """What `generate` adds to each step's forward, without heads."""
    if not setting.wants("overhead"):
        return
    setting.begin("generate outside the forward")
    model = load(setting.files("Q4_1"), heads=None, device="cpu")
    prompt = setting.tokens(setting.sizes.prompt_tokens, model.config.vocab_size).tolist()
    count = min(setting.sizes.new_tokens, 128)
    sides: dict[str, Callable[[], float | None]] = {
        "plain": lambda: _outside(model, prompt, count, {"tree": None}),
        "lookup, tree of 8": lambda: _outside(model, prompt, count, {"tree": 8, "draft": "lookup"}),
    }
    seconds = interleaved(sides, setting.sizes.repeats)
    for name, time in seconds.items():
        what = f"generate ({name}): a step outside the forward"
        yield Row("overhead", what, 1e6 * time, "µs", 150.0, at_most=True)


def _outside(model: Model, prompt: list[int], count: int, how: dict[str, Any]) -> float:
    stats = generate(model, prompt, count, ignore_eos=True, **how).stats
    return sum(float(stats.seconds[phase]) for phase in _OUTSIDE) / max(int(stats.steps), 1)


_MEMORY_PROGRAM: Final = """
import json, sys, threading, time
import gguf, numpy, torch, transformers
import medusa_ext, medusa_ext.checkpoints.tokenizer.load
from medusa_ext import _C
from transformers import PreTrainedTokenizerFast

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))

before, peak, ended = anonymous(), 0, False
def watch():
    global peak
    while not ended:
        peak = max(peak, anonymous())
        time.sleep(0.005)
thread = threading.Thread(target=watch)
thread.start()
_C.set_num_threads(int(sys.argv[3]))
model = medusa_ext.load(sys.argv[1], heads=None, device="cpu", dtype=sys.argv[2])
session = model.session(max_length=512)
medusa_ext.generate(session, [1, 2, 3, 4, 5, 6, 7, 8], 16, tree=None, ignore_eos=True)
after = anonymous()
ended = True
thread.join()
config = model.config
cache = 2 * 4 * config.num_layers * config.num_kv_heads * config.head_size * (512 + 64)
print(json.dumps({"after": after - before, "peak": max(peak, after) - before,
                  "packed": model.native.packed_bytes, "cache": cache}))
"""
_ALLOWED: Final = 100e6


def measure_memory(setting: Setting) -> Iterator[Row]:
    """Anonymous memory of loading and generating, above that after imports, in a fresh process."""
    if not setting.wants("memory"):
        return
    for name, storage in (("float32", "F32"), ("int8", "Q8_0"), ("int4 (Q4_1)", "Q4_1")):
        setting.begin(f"memory: {name}")
        found = _memory_of(setting.files(storage), "auto", setting.threads)
        if found is None:
            yield Row("memory", name, None, "MB", note="no /proc/self/status here")
            continue
        extra = found["peak"] - found["packed"] - found["cache"]
        yield Row(
            "memory",
            f"{name}: peak anonymous memory beyond packed weights and cache",
            extra / 1e6,
            "MB",
            _ALLOWED / 1e6,
            at_most=True,
            details={
                "peak, MB": found["peak"] / 1e6,
                "after, MB": found["after"] / 1e6,
                "packed weights, MB": found["packed"] / 1e6,
                "cache, MB": found["cache"] / 1e6,
            },
        )


def _memory_of(path: Path, dtype: str, threads: int) -> dict[str, float] | None:
    command = [sys.executable, "-c", _MEMORY_PROGRAM, str(path), dtype, str(threads)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        if "/proc/self/status" in result.stderr:
            return None
        raise RuntimeError(f"memory: the measuring process failed: {result.stderr[-2000:]}")
    return dict(json.loads(result.stdout.splitlines()[-1]))
