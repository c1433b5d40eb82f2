#!/usr/bin/env python3
"""Compile every CUDA kernel for every architecture and report what each one uses.

Needs nvcc, no device. Warnings are errors. From what ptxas says it makes a table of registers,
spills, stack, shared memory and occupancy (docs/cuda_resources.md); with cuobjdump at hand (in the
toolkit, or PyPI's nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm) it also checks that the machine
code holds the instructions that docs/cuda_design.md claims.

    scripts/cuda_resources.py            # checks, and rewrites docs/cuda_resources.md
    scripts/cuda_resources.py --check    # checks alone
"""

from __future__ import annotations

import argparse
import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
DOCUMENT = ROOT / "docs" / "cuda_resources.md"
ARCHITECTURES = ("80", "86", "89", "90", "100", "120")
PTX_ARCHITECTURE = "120"
FLAGS = ["-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra"]
HOST_FLAGS = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]


@dataclass(frozen=True)
class Limits:
    """What one multiprocessor holds; shared memory in bytes, 1 KiB per block being reserved."""

    threads: int
    blocks: int
    shared: int
    registers: int = 65536


LIMITS = {
    "80": Limits(2048, 32, 164 * 1024),
    "86": Limits(1536, 16, 100 * 1024),
    "89": Limits(1536, 24, 100 * 1024),
    "90": Limits(2048, 32, 228 * 1024),
    "100": Limits(2048, 32, 228 * 1024),
    "120": Limits(1536, 24, 100 * 1024),
}

# Kernel (as in the table) -> instructions its machine code must hold on every architecture.
CLAIMS = {
    r"tree_attention_kernel": [
        r"HMMA\.16816\.F32",  # tensor cores
        r"LDGSTS\.E\.BYPASS\.(LTC128B\.)?128",  # cp.async of 16 bytes
        r"LDSM\.16\.M88\.4",  # ldmatrix of K
        r"LDSM\.16\.MT88\.4",  # and of V, transposed
    ],
    r"merge_splits_kernel": [r"LDG\.E\.(\w+\.)*128"],
    r"reduce_chunk_kernel": [r"LDG\.E\.(\w+\.)*128"],
    r"threshold_kernel": [r"LDG\.E\.(\w+\.)*128"],
    r"chunk_top_k_kernel": [r"LDG\.E\.(\w+\.)*128"],
    r"compact_kernel<uint4>": [r"LDG\.E\.(\w+\.)*128", r"STG\.E\.(\w+\.)*128"],
    r"rms_norm_kernel<\w+, 4>": [r"LDG\.E\.(\w+\.)*128"],
}

# No spills and no stack frames, on any architecture.
CLEAN_KERNELS = re.compile(
    r"tree_attention|merge_splits|float_attention|accept|walk|node_rows|publish|merge_drafts"
)


@dataclass
class Usage:
    """One kernel on one architecture, as ptxas reports it."""

    registers: int = 0
    stack: int = 0
    spills: int = 0
    shared: int = 0


@dataclass
class Kernel:
    """One kernel: threads of a block at most, usage and instructions by architecture."""

    name: str
    threads: int = 0
    usage: dict[str, Usage] = field(default_factory=dict)
    instructions: dict[str, set[str]] = field(default_factory=dict)


def find_tool(name: str) -> str | None:
    """The path of a toolkit program: on PATH, in CUDA's folder, or in PyPI's packages."""
    found = shutil.which(name)
    if found is not None:
        return found
    site_packages = [path for path in sys.path if path.endswith("site-packages")]
    patterns = ["/usr/local/cuda*/bin/" + name]
    patterns += [f"{path}/nvidia/cu*/bin/{name}" for path in site_packages]
    return next((path for pattern in patterns for path in sorted(glob.glob(pattern))), None)


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Output of a command, both streams; RuntimeError with it when the command fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def sources(suffix: str) -> list[Path]:
    """The CUDA backend's files of csrc/sources.txt with this suffix."""
    lines = (CSRC / "sources.txt").read_text().split()
    return [CSRC / line for line in lines if line.startswith("cuda/") and line.endswith(suffix)]


def short_name(mangled: str) -> str:
    """`name<arguments>` of a kernel, without namespaces and parameters."""
    name = run(["c++filt", mangled]).strip()
    match = re.search(r"(\w+_kernel)(<.*?>)?\(", name)
    if match is None:
        raise RuntimeError(f"not a kernel's name: {name}")
    arguments = match.group(2) or ""
    for kind, meaning in enumerate(("argmax", "gumbel", "entropy")):
        pattern = rf"\((?:\w|::|\(|\)| )*?RowReduction\){kind}"
        arguments = re.sub(pattern, meaning, arguments)
    arguments = re.sub(r"\((?:unsigned )?int\)|medusa::cuda::|__nv_", "", arguments)
    return match.group(1) + arguments.replace("__half", "half")


def parse_usage(output: str) -> dict[str, dict[str, Usage]]:
    """ptxas -v: {mangled name: {architecture: usage}}."""
    kernels: dict[str, dict[str, Usage]] = {}
    usage = Usage()
    for line in output.splitlines():
        if entry := re.search(r"Compiling entry function '(\S+)' for 'sm_(\d+)'", line):
            usage = Usage()
            kernels.setdefault(entry.group(1), {})[entry.group(2)] = usage
        elif frame := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            usage.stack, usage.spills = int(frame.group(1)), int(frame.group(2))
        elif used := re.search(r"Used (\d+) registers", line):
            usage.registers = int(used.group(1))
            shared = re.search(r"(\d+) bytes smem", line)
            usage.shared = int(shared.group(1)) if shared else 0
    return kernels


def parse_threads(ptx: str) -> dict[str, int]:
    """Threads of a block at most, by mangled name, from __launch_bounds__."""
    found = re.findall(r"\.entry (\w+)\(.*?\)\s*\.maxntid (\d+)", ptx, re.DOTALL)
    return {name: int(threads) for name, threads in found}


def disassemble(cubin: Path, cuobjdump: str) -> dict[str, set[str]]:
    """The instructions of each kernel of a cubin, with their modifiers, by mangled name."""
    folders = [str(Path(cuobjdump).parent), os.environ.get("PATH", "")]
    output = run([cuobjdump, "-sass", str(cubin)], {"PATH": os.pathsep.join(folders)})
    kernels: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in output.splitlines():
        if function := re.search(r"Function : (\S+)", line):
            current = kernels.setdefault(function.group(1), set())
        elif instruction := re.search(r"^\s+/\*\w+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", line):
            current.add(instruction.group(1))
    return kernels


def compile_kernels(source: Path, nvcc: str, cuobjdump: str | None) -> list[Kernel]:
    """Compile one file for all architectures."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    targets.append(f"-gencode=arch=compute_{PTX_ARCHITECTURE},code=compute_{PTX_ARCHITECTURE}")
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *FLAGS, *targets, "-Xptxas", "-v", f"-I{CSRC}", "--keep"]
        command += ["--keep-dir", folder, "-c", str(source), "-o", f"{folder}/kernels.o"]
        usage = parse_usage(run(command))
        ptx = next(Path(folder).glob(f"*_{PTX_ARCHITECTURE}.ptx"))
        threads = parse_threads(ptx.read_text())
        kernels = {
            mangled: Kernel(short_name(mangled), threads[mangled], by_architecture)
            for mangled, by_architecture in usage.items()
        }
        if cuobjdump is not None:
            for architecture in ARCHITECTURES:
                cubin = next(Path(folder).glob(f"*_{architecture}.cubin"))
                for mangled, instructions in disassemble(cubin, cuobjdump).items():
                    kernels[mangled].instructions[architecture] = instructions
    return list(kernels.values())


def check_host_sources(nvcc: str) -> str:
    """Compile the backend's host files as far as headers allow; returns what was left out."""
    toolkit = Path(os.path.realpath(nvcc)).parent.parent
    includes = sorted({str(CSRC), *glob.glob("/usr/local/cuda*/include"), f"{toolkit}/include"})
    for path in sys.path:
        includes += glob.glob(f"{path}/nvidia/cu*/include")
    has_cublas = any((Path(path) / "cublasLt.h").exists() for path in includes)
    for source in sources(".cpp"):
        if source.name != "linear_cublaslt.cpp" or has_cublas:
            run(["g++", *HOST_FLAGS, *(f"-I{path}" for path in includes), str(source)])
    return "" if has_cublas else "no cublasLt.h here: linear_cublaslt.cpp was not compiled"


def dynamic_shared(kernel: Kernel) -> int:
    """Bytes of dynamic shared memory of the largest block, as AttentionTile in
    csrc/cuda/attention/tree_attention.cuh has them; the other kernels use little."""
    match = re.match(r"tree_attention_kernel<\w+, (\d+)>", kernel.name)
    if match is None:
        return 0
    head_size = int(match.group(1))
    keys = 64 if head_size <= 80 else 32
    q_rows = kernel.threads // 32 * 16 if head_size > 128 else 0
    return (4 * keys + q_rows) * (head_size + 8) * 2


def occupancy(kernel: Kernel, architecture: str) -> float:
    """Share of a multiprocessor's threads that can be resident, largest blocks assumed."""
    limits, usage = LIMITS[architecture], kernel.usage[architecture]
    warps = kernel.threads // 32
    registers = -(-usage.registers * 32 // 256) * 256 * warps
    shared = usage.shared + dynamic_shared(kernel) + 1024
    blocks = min(
        limits.blocks,
        limits.threads // kernel.threads,
        limits.registers // registers,
        limits.shared // shared,
    )
    return blocks * kernel.threads / limits.threads


def find_faults(kernels: list[Kernel]) -> list[str]:
    """Broken claims: spills and stack frames where none may be, instructions that are missing."""
    faults = []
    for kernel in kernels:
        for architecture, usage in kernel.usage.items():
            where = f"{kernel.name} on sm_{architecture}"
            if CLEAN_KERNELS.match(kernel.name) and (usage.spills or usage.stack):
                faults.append(f"{where}: {usage.spills} bytes spilled, {usage.stack} of stack")
            if occupancy(kernel, architecture) == 0:
                faults.append(f"{where}: its largest block does not fit")
        for pattern, wanted in CLAIMS.items():
            if not re.match(pattern, kernel.name):
                continue
            for architecture, instructions in kernel.instructions.items():
                for claim in wanted:
                    if not any(re.match(claim, instruction) for instruction in instructions):
                        faults.append(f"{kernel.name} on sm_{architecture}: no {claim}")
    for pattern in CLAIMS:
        if not any(re.match(pattern, kernel.name) for kernel in kernels):
            faults.append(f"no kernel is called {pattern}")
    return faults


def table(kernels: list[Kernel], version: str) -> str:
    """The document."""
    lines = [
        "# Resources of the CUDA kernels",
        "",
        f"Written by `scripts/cuda_resources.py` with nvcc {version}. Per architecture: registers",
        "of a thread, and the share of a multiprocessor's threads that can be resident with blocks",
        "of the largest size. Shared memory in bytes of the largest block, dynamic included; stack",
        "frame and spill stores in bytes, the most over the architectures. Attention launches",
        "smaller blocks, and more of them, when a sequence has fewer packed rows.",
        "",
        "| kernel | threads | shared | stack | spills | "
        + " | ".join(f"sm_{a}" for a in ARCHITECTURES)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(ARCHITECTURES),
    ]
    for kernel in sorted(kernels, key=lambda k: k.name):
        shared = max(u.shared for u in kernel.usage.values()) + dynamic_shared(kernel)
        cells = [f"`{kernel.name}`", str(kernel.threads), str(shared)]
        cells.append(str(max(u.stack for u in kernel.usage.values())))
        cells.append(str(max(u.spills for u in kernel.usage.values())))
        for a in ARCHITECTURES:
            share = round(100 * occupancy(kernel, a))
            cells.append(f"{kernel.usage[a].registers}, {share} %")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="write no document")
    parser.add_argument("--jobs", type=int, default=2, help="files compiled at a time")
    options = parser.parse_args()
    nvcc, cuobjdump = find_tool("nvcc"), find_tool("cuobjdump")
    if nvcc is None:
        print("cuda_resources: no nvcc here, nothing was checked")
        return 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(compile_kernels, s, nvcc, cuobjdump) for s in sources(".cu")]
        kernels = [kernel for future in futures for kernel in future.result()]
    notes = [check_host_sources(nvcc)]
    if cuobjdump is None:
        notes.append("no cuobjdump here: the machine code was not looked at")
    faults = find_faults(kernels)
    for line in [note for note in notes if note] + faults:
        print(f"cuda_resources: {line}")
    if not options.check:
        match = re.search(r"release [\d.]+, V([\d.]+)", run([nvcc, "--version"]))
        DOCUMENT.write_text(table(kernels, match.group(1) if match else "unknown"))
    print(f"cuda_resources: {len(kernels)} kernels, {len(ARCHITECTURES)} architectures, ", end="")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
