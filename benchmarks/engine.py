"""The parts measured once: Python's share of a step, the attention operator, memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from medusa_ext.api import generate, load
from medusa_ext.engine.model import Model
from medusa_ext.engine.results import PHASES

from .rows import Row, interleaved, seconds_of
from .setting import Setting

_OUTSIDE: Final = tuple(phase for phase in PHASES if phase not in ("prefill", "verify"))


def measure_overhead(setting: Setting) -> Iterator[Row]:
    """What `generate` adds to each step's forward, without heads."""
    if not setting.wants("overhead"):
        return
    setting.progress.step("generate outside the forward")
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


# Heads and layers of the default model; all layers' caches together do not fit any cache.
_QUERY_HEADS, _KV_HEADS, _HEAD_SIZE, _LAYERS = 9, 3, 64, 30


def measure_attention(setting: Setting) -> Iterator[Row]:
    """tree_attention in bfloat16 against torch's SDPA with a mask, over all layers' caches.

    Both work on tensors as torch allocates them. The share of the read bandwidth is that of caches
    in huge pages, where sessions keep theirs.
    """
    if not setting.wants("attention"):
        return
    import torch

    from medusa_ext import ops

    setting.progress.step("attention")
    context = setting.sizes.attention_context
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(torch.bfloat16)

    nodes = 16
    shape = (_LAYERS, 2, 1, _KV_HEADS, context + nodes, _HEAD_SIZE)
    caches = [(normal(*shape[2:]), normal(*shape[2:])) for _ in range(_LAYERS)]
    # numpy asks for huge pages.
    memory = torch.from_numpy(np.empty(math.prod(shape), dtype=np.int16)).view(torch.bfloat16)
    huge_caches = memory.normal_(generator=generator).view(shape).unbind()
    lengths = torch.tensor([context], dtype=torch.int32)

    def ours(count: int, caches: Iterable[Iterable[torch.Tensor]]) -> Callable[[], float]:
        q = normal(1, count, _QUERY_HEADS, _HEAD_SIZE)
        # The root's children have one child each: paths of all lengths, no plain chain.
        parents = torch.tensor([[-1, *[(i - 1) // 2 for i in range(1, count)]]], dtype=torch.int32)

        def run() -> None:
            for k, v in caches:
                ops.tree_attention(q, k, v, lengths, parents)

        return lambda: seconds_of(run) / _LAYERS

    def sdpa(repeat_heads: bool) -> Callable[[], float]:
        q = normal(1, _QUERY_HEADS, nodes, _HEAD_SIZE)
        mask = torch.ones(nodes, context + nodes, dtype=torch.bool)
        mask[:, context:] = torch.ones(nodes, nodes, dtype=torch.bool).tril()
        groups = _QUERY_HEADS // _KV_HEADS

        def run() -> None:
            for k, v in caches:
                if repeat_heads:
                    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
                torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, enable_gqa=not repeat_heads
                )

        return lambda: seconds_of(run) / _LAYERS

    sides: dict[str, Callable[[], float | None]] = {
        "ours 16": ours(nodes, caches),
        "ours 1": ours(1, huge_caches),
        "SDPA": sdpa(False),
        "SDPA, heads repeated": sdpa(True),
    }
    with torch.inference_mode():
        seconds = interleaved(sides | setting.memory_side(), setting.sizes.repeats)
    best = min(seconds["SDPA"], seconds["SDPA, heads repeated"])
    yield Row(
        "attention",
        f"tree_attention, 16 nodes, context {context}, bfloat16, against torch SDPA with a mask",
        best / seconds["ours 16"],
        "x",
        3.0,
        details={
            f"{name}, µs": 1e6 * seconds[name]
            for name in ("ours 16", "SDPA", "SDPA, heads repeated")
        },
    )
    rate = 2 * _KV_HEADS * _HEAD_SIZE * 2 * context / seconds["ours 1"]
    read = seconds.get("memory")
    details = {"µs": 1e6 * seconds["ours 1"], "GB/s": rate / 1e9}
    if read is not None:
        details["DRAM read, GB/s"] = read / 1e9
    yield Row(
        "attention",
        f"tree_attention, 1 node, context {context}, bfloat16: share of DRAM read bandwidth",
        rate / read if read is not None else None,
        "",
        0.7,
        details=details,
    )


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
        setting.progress.step(f"memory: {name}")
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
