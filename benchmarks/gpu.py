"""`python -m benchmarks gpu`: all that wants a GPU, with one command.

Runs the tests marked `cuda`, the same under compute-sanitizer where that is installed, the kernels
against torch's own, and whole decoding with synthetic models of 7B and 13B shape. Prints a
summary; writes gpu.json and two plots. `--toy` runs the same code at toy size on the CPU.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from medusa_ext import _C
from medusa_ext.engine.arguments import check_choice
from medusa_ext.files import write_json

from . import CHECKOUT
from .gpu_decoding import SHAPES, TOY, SyntheticModel, bench_decoding
from .gpu_kernels import (
    LLAMA_SHAPES,
    AttentionShape,
    bench_attention,
    bench_compact,
    device_bandwidth,
)
from .gpu_plots import plot

TESTS = CHECKOUT / "python_tests"
SECTIONS = ("tests", "sanitizer", "kernels", "decoding")
NODE_COUNTS = (1, 4, 8, 16, 32, 64, 128, 256)


def measure_gpu(output: Path, only: Sequence[str] = (), *, toy: bool = False) -> int:
    """The exit code: 0 unless a test failed or a result was wrong (1), or no GPU is there (2).

    Raises ValueError for a section in `only` that there is not.
    """
    for section in only:
        check_choice("--only", section, SECTIONS)
    wanted = only or SECTIONS
    device = "cpu" if toy else "cuda"
    if not toy and (reason := _why_no_device()):
        print(f"benchmarks gpu: {reason} (--toy runs at toy size on the CPU)")
        return 2
    report: dict[str, Any] = {"toy": toy, **_describe(device)}
    report["bytes_per_second"] = device_bandwidth(device, (1 << 20) if toy else (1 << 30))
    report["tests"] = _run_tests([]) if "tests" in wanted and not toy else None
    report["sanitizer"] = _run_sanitizer() if "sanitizer" in wanted and not toy else None
    report["attention"], report["compact"] = [], []
    if "kernels" in wanted:
        report["attention"], report["compact"] = _kernels(device, toy)
    report["decoding"] = []
    if "decoding" in wanted:
        report["decoding"] = _decoding(device, toy, report["bytes_per_second"])
    write_json(output / "gpu.json", report)
    print(summary(report))
    for path in (output / "gpu.json", *plot(report, output)):
        print(f"wrote {path}")
    return 0 if is_sound(report) else 1


def _why_no_device() -> str:
    if "cuda" not in _C.devices():
        return "this build has no CUDA backend (medusa-ext doctor says why)"
    return "" if torch.cuda.is_available() else "no CUDA device is present"


def _describe(device: str) -> dict[str, Any]:
    name = platform.machine()
    if device == "cuda":
        name = torch.cuda.get_device_name(0)
    return {"device": name, "torch": str(torch.__version__), "cuda": torch.version.cuda}


def _run_tests(prefix: Sequence[str]) -> dict[str, Any]:
    """The tests marked `cuda`, in a process of their own."""
    command = [*prefix, sys.executable, "-m", "pytest", "-q", "-m", "cuda", str(TESTS)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)
    lines = (result.stdout + result.stderr).strip().splitlines()
    return {"passed": result.returncode == 0, "summary": "\n".join(lines[-20:])}


def _run_sanitizer() -> dict[str, Any]:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"passed": None, "summary": "not run: compute-sanitizer is not installed"}
    return _run_tests([tool, "--error-exitcode", "9", "--target-processes", "all"])


def _kernels(device: str, toy: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if toy:
        shape = AttentionShape("toy", 4, 2, 64)
        attention = bench_attention([shape], [5], [40], device, torch.float32)
        return attention, [bench_compact(2, shape, 40, device, torch.float32)]
    half = torch.bfloat16
    attention = bench_attention(LLAMA_SHAPES, (16, 64, 256), (512, 4096, 32768), device, half)
    return attention, [bench_compact(32, shape, 4096, device, half) for shape in LLAMA_SHAPES]


def _decoding(device: str, toy: bool, bytes_per_second: float) -> list[dict[str, Any]]:
    dtype = "float32" if toy else "bfloat16"
    rows = []
    for shape in (TOY,) if toy else SHAPES:
        model = SyntheticModel(shape, device, dtype)
        heads = model.heads(dtype)
        for length in (32,) if toy else (512, 4096):
            sizes = (1, 4, 16) if toy else NODE_COUNTS
            steps = 6 if toy else 100
            found = bench_decoding(model, heads, sizes, length, steps, dtype, bytes_per_second)
            rows += [decoding.to_json() for decoding in found]
    return rows


def is_sound(report: dict[str, Any]) -> bool:
    """Whether nothing failed: tests, the moved rows, attention's errors."""
    failed = [report[name] for name in ("tests", "sanitizer") if report[name]]
    if any(section["passed"] is False for section in failed):
        return False
    exact = all(row["is_exact"] for row in report["compact"])
    return exact and all(row["max_error"] < 0.1 for row in report["attention"])


def summary(report: dict[str, Any]) -> str:
    """The figures as text."""
    speed = report["bytes_per_second"]
    lines = [f"{report['device']}, torch {report['torch']}, copies at {speed / 1e9:.1f} GB/s"]
    for name in ("tests", "sanitizer"):
        if report[name]:
            lines.append(f"{name}: {report[name]['summary'].splitlines()[-1]}")
    for row in report["attention"]:
        flex = row["flex_attention_us"]
        flex = flex if isinstance(flex, str) else f"{flex:.1f} us"
        lines.append(
            f"tree_attention {row['shape']} N {row['num_nodes']} length {row['length']}: "
            f"{row['tree_attention_us']:.1f} us ({row['cache_bytes_per_second'] / speed:.0%} of "
            f"the bandwidth), SDPA with a mask {row['sdpa_us']:.1f} us, FlexAttention {flex}, "
            f"largest error {row['max_error']:.2g}"
        )
    for row in report["compact"]:
        lines.append(
            f"compact {row['shape']}, {row['num_layers']} layers: {row['compact_us']:.1f} us, "
            f"index_select {row['index_select_us']:.1f} us"
        )
    for row in report["decoding"]:
        kind = "acceptance replay of published accuracies" if row["replayed"] else "plain"
        lines.append(
            f"{row['model']} N {row['num_nodes']} length {row['length']}: "
            f"{row['tokens_per_second']:.1f} tokens/s, {row['tokens_per_step']:.2f} per step, "
            f"{row['milliseconds']:.2f} ms a step, {row['bandwidth_share']:.0%} of the bandwidth, "
            f"{row['divergences']} divergences ({kind})"
        )
    return "\n".join(lines)
