"""`medusa-ext doctor`: what this installation consists of, and why."""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import shutil
from pathlib import Path

from .. import SETTINGS, __version__
from .._build import BuildError, Found, Settings, build_folder, find_compiler, find_nvcc, look
from ..checkpoints.names import DEFAULT_MODEL, DEFAULT_SIZE, local_default
from ..files import processor_fields, processor_name

PACKAGE = Path(__file__).parents[1]
# What decides the speed of the CPU kernels, as Linux spells it.
PROCESSOR_FLAGS = (
    "avx2 fma f16c avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 amx_int8 "
    "asimd asimddp i8mm bf16 sve"
).split()
# What an instruction set lacks. The results are the same up to rounding.
SLOWER = {
    "generic": "; every format takes a slow portable path",
    "avx2": "; int8 and int4 without VNNI's dot products, which is slower",
    "neon": "; int8 and int4 without dot products, which is slower",
}


def main() -> int:
    """Prints the report. 0 if a forward could run (perhaps after compiling), else 1."""
    text, usable = _examine(SETTINGS)
    print(text)
    return 0 if usable else 1


def report() -> str:
    """The report as text, one fact a line. Compiles nothing."""
    return _examine(SETTINGS)[0]


def _examine(settings: Settings) -> tuple[str, bool]:
    lines = [("medusa_ext", f"{__version__} in {PACKAGE}")]
    lines.append(("python", f"{platform.python_version()} on {platform.platform()}"))
    usable = True
    try:
        found = look(PACKAGE, settings)
        lines.append(("torch", _torch(found)))
        lines += _toolchain(found, settings)
        lines += _native(found, settings)
        usable = found.binary is not None or _can_compile(settings)
    except BuildError as error:
        lines.append(("extension", f"unusable: {error}"))
        usable = False
    lines.append(("processor", _processor()))
    lines += _caches(settings)
    lines.append(("default model", _default_model()))
    lines.append(("environment", _environment()))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines), usable


def _torch(found: Found) -> str:
    kind = f"CUDA {found.plan.torch.cuda}" if found.plan.torch.cuda else "a CPU build"
    return f"{found.plan.torch.version}, {kind}, in {found.plan.torch.root}"


def _toolchain(found: Found, settings: Settings) -> list[tuple[str, str]]:
    try:
        compiler = find_compiler(settings)
        host = f"{shlex.join(compiler.command)}: {compiler.version}"
    except BuildError:
        host = "none found (looked for $CXX, c++, g++ and clang++)"
    nvcc = "not needed"
    if found.plan.torch.cuda:
        result = find_nvcc(settings, found.plan.torch.cuda)
        nvcc = result if isinstance(result, str) else f"{result[0]}, {result[1]}"
    return [("compiler", host), ("nvcc", nvcc)]


def _native(found: Found, settings: Settings) -> list[tuple[str, str]]:
    """The binary, its backends, and what it says of this machine."""
    rows: list[tuple[str, str]] = []
    if found.rejected:
        rows.append(("ahead of time", found.rejected))
    if found.binary is None:
        if settings.disable_jit:
            state = "none, and MEDUSA_DISABLE_JIT=1 forbids compiling"
        elif _can_compile(settings):
            state = f"none yet: the {found.plan.backends()} will be compiled at first use"
        else:
            state = "none, and no compiler to make one"
        return [*rows, ("extension", state), ("cuda backend", _cuda(found))]
    binary = found.binary
    rows.append(("extension", f"built {binary.origin} with {binary.info['compiler']}"))
    rows.append(("binary", str(binary.path)))
    rows.append(("cpu backend", "built"))
    rows.append(("cuda backend", _cuda(found)))
    try:
        native = importlib.import_module("medusa_ext._C")
    except ImportError as error:
        return [*rows, ("loading it", f"fails: {error}")]
    isas = ", ".join(native.available_isas())
    slower = SLOWER.get(native.default_isa(), "")
    rows.append(("instruction set", f"{native.default_isa()} (this machine has {isas}){slower}"))
    rows.append(("threads", f"{native.num_threads()} of {os.cpu_count()} processors"))
    return rows


def _cuda(found: Found) -> str:
    """Whether the CUDA backend is in the binary (or would be), and why."""
    if found.binary is None:
        return f"{'would be' if found.plan.cuda else 'not'} built: {found.plan.cuda_reason}"
    info = found.binary.info
    if info["cuda"]:
        return f"built with nvcc {info['cuda']} for {', '.join(info['cuda_arches'])}"
    # Built where CUDA could not be had, perhaps elsewhere; what is wrong here matters more.
    return f"not built: {info['cuda_reason'] if found.plan.cuda else found.plan.cuda_reason}"


def _can_compile(settings: Settings) -> bool:
    if settings.disable_jit:
        return False
    try:
        find_compiler(settings)
    except BuildError:
        return False
    return True


def _processor() -> str:
    """The model's name and the instruction sets that matter, from the kernel."""
    fields = processor_fields()
    present = fields.get("flags", fields.get("Features", "")).split()
    known = " ".join(flag for flag in PROCESSOR_FLAGS if flag in present)
    return f"{processor_name()}: {known or 'no known flags'}"


def _caches(settings: Settings) -> list[tuple[str, str]]:
    folders = {"cache": settings.cache, "builds": build_folder(settings)}
    return [(name, f"{path} ({_size(path)})") for name, path in folders.items()]


def _size(path: Path) -> str:
    if not path.exists():
        return "empty"
    total = sum(p.lstat().st_size for p in path.rglob("*") if p.is_file())
    return f"{total / 1e6:.1f} MB, {shutil.disk_usage(path).free / 1e9:.0f} GB free"


def _default_model() -> str:
    """Whether loading the default model would need the network. Downloads nothing."""
    path = local_default()
    if path is not None:
        return f"{DEFAULT_MODEL} in {path}"
    return f"{DEFAULT_MODEL} is not here; loading it fetches {DEFAULT_SIZE / 1e6:.0f} MB once"


def _environment() -> str:
    names = ("CXX", "CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS")
    chosen = [name for name in sorted(os.environ) if name.startswith("MEDUSA_") or name in names]
    return " ".join(f"{name}={shlex.quote(os.environ[name])}" for name in chosen) or "nothing set"
