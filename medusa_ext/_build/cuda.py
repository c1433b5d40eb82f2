"""Whether the CUDA backend is built, for which architectures, and why."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .settings import BuildError, Settings

# Where MEDUSA_CUDA=1 asks for CUDA on a machine without a device; those that nvcc knows.
DEFAULT_ARCHES = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0+PTX")
NVML_DRIVER = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class Cuda:
    """The toolkit and the architectures ("9.0", "12.0+PTX") to compile for."""

    home: Path
    version: str
    arches: tuple[str, ...]

    def include_directories(self) -> list[Path]:
        """The toolkit's headers, then those of pip's nvidia packages (cublas, cusparse, …)."""
        return [path for path in (self.home / "include", *_pip_folders("include")) if path.is_dir()]

    def link_flags(self, folder: Path) -> list[str]:
        """The linker's words for libcudart and libcublasLt, which get their plain names in
        `folder`: pip's packages have those with a version only.

        Raises BuildError naming one that is not there.
        """
        folders = (*_pip_folders("lib"), self.home / "lib64", self.home / "lib")
        flags = [f"-L{folder}"]
        for name in ("cudart", "cublasLt"):
            paths = [path for one in folders for path in sorted(one.glob(f"lib{name}.so*"))]
            if not paths:
                looked = ", ".join(map(str, folders))
                raise BuildError(f"medusa_ext: the CUDA backend needs lib{name}.so* in {looked}")
            link = folder / f"lib{name}.so"
            link.unlink(missing_ok=True)
            link.symlink_to(paths[0])
            flags += [f"-l{name}", f"-Wl,-rpath,{paths[0].parent}"]
        return flags


def decide(torch_cuda: str | None, settings: Settings) -> tuple[Cuda | None, str]:
    """What to build, and the reason in words. `torch_cuda`: torch.version.cuda, as "13.0"."""
    if torch_cuda is None:
        return None, "the installed torch is not a CUDA build"
    if settings.cuda is False:
        return None, "MEDUSA_CUDA=0"
    nvcc = find_nvcc(settings, torch_cuda)
    if isinstance(nvcc, str):
        return None, nvcc
    path, version = nvcc
    if settings.cuda_arch_list:
        arches = parse_arch_list(settings.cuda_arch_list)
        reason = f"TORCH_CUDA_ARCH_LIST={settings.cuda_arch_list}"
    elif devices := device_arches():
        known = known_arches(path)
        arches = tuple(dict.fromkeys(_supported(arch, known) for arch in devices))
        reason = "a CUDA device is present"
    elif settings.cuda:
        known = known_arches(path)
        arches = tuple(arch for arch in DEFAULT_ARCHES if _number(arch) in known)
        reason = "MEDUSA_CUDA=1"
    else:
        return None, "no CUDA device is present (MEDUSA_CUDA=1 builds for all architectures)"
    return Cuda(toolkit_home(path), version, arches), reason


def find_nvcc(settings: Settings, torch_cuda: str) -> tuple[Path, str] | str:
    """nvcc of torch's major version and its own version; or why there is none."""
    on_path = shutil.which("nvcc")
    candidates = [Path(settings.cuda_home) / "bin/nvcc"] if settings.cuda_home else []
    candidates += [Path(on_path).resolve()] if on_path else []
    candidates += [Path("/usr/local/cuda/bin/nvcc")]
    candidates += [folder.parent / "bin/nvcc" for folder in _pip_folders("include")]
    wrong = ""
    for path in candidates:
        version = nvcc_version(path) if os.access(path, os.X_OK) else ""
        if version and version.split(".")[0] == torch_cuda.split(".")[0]:
            return path, version
        wrong = wrong or (f" ({path} is {version})" if version else "")
    return f"no nvcc {torch_cuda.split('.')[0]}.x found for torch's CUDA {torch_cuda}{wrong}"


def nvcc_version(path: Path) -> str:
    """ "13.0" from `nvcc --version`; empty if it does not run."""
    found = re.search(r"release (\d+\.\d+)", _said(path, "--version"))
    return found[1] if found else ""


def toolkit_home(nvcc: Path) -> Path:
    """The folder that nvcc takes its headers from; nvcc itself may be a script elsewhere."""
    found = re.search(r"^#\$ TOP=(.+)$", _said(nvcc, "--dryrun", "-E", "-x", "cu", os.devnull), re.M)
    return Path(found[1]).resolve() if found else nvcc.resolve().parent.parent


def known_arches(nvcc: Path) -> set[int]:
    """The architectures that this nvcc can compile for, as 90 for sm_90."""
    return {int(number) for number in re.findall(r"sm_(\d+)\b", _said(nvcc, "--list-gpu-code"))}


def _said(nvcc: Path, *words: str) -> str:
    try:
        result = subprocess.run([nvcc, *words], capture_output=True, text=True)
    except OSError:
        return ""
    return result.stdout + result.stderr


def parse_arch_list(text: str) -> tuple[str, ...]:
    """ "8.0;9.0+PTX" or with spaces or commas; raises BuildError for anything else."""
    arches = tuple(part for part in re.split(r"[;,\s]+", text) if part)
    for arch in arches:
        if not re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", arch):
            raise BuildError(f"TORCH_CUDA_ARCH_LIST: needs numbers as 9.0 or 9.0+PTX, got {arch!r}")
    return arches


def device_arches() -> tuple[str, ...]:
    """Compute capabilities of the visible devices, each once.

    Asks the driver's management library, since initialising CUDA would break later forks.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return ()
    try:
        nvml = ctypes.CDLL(NVML_DRIVER)
    except OSError:
        return ()
    if nvml.nvmlInit_v2() != 0:
        return ()
    count, device, major, minor = (ctypes.c_uint(), ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int())
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    arches = []
    for index in range(count.value):
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        found = ctypes.byref(major), ctypes.byref(minor)
        if nvml.nvmlDeviceGetCudaComputeCapability(device, *found) == 0:
            arches.append(f"{major.value}.{minor.value}")
    nvml.nvmlShutdown()
    return tuple(dict.fromkeys(arches))


def runs_on(built: list[str], devices: tuple[str, ...]) -> bool:
    """Whether code built for these architectures runs on every device."""
    return all(any(_covers(arch, device) for arch in built) for device in devices)


def _covers(arch: str, device: str) -> bool:
    built, wanted = _number(arch), _number(device)
    return built <= wanted and (arch.endswith("+PTX") or built // 10 == wanted // 10)


def _supported(device: str, known: set[int]) -> str:
    """The device's architecture, or PTX of the newest below it that nvcc knows."""
    wanted = _number(device)
    if wanted in known:
        return device
    older = [arch for arch in known if arch < wanted]
    if not older:
        raise BuildError(f"medusa_ext: nvcc cannot compile for compute capability {device}")
    return f"{max(older) // 10}.{max(older) % 10}+PTX"


def _number(arch: str) -> int:
    major, minor = arch.removesuffix("+PTX").rstrip("af").split(".")
    return int(major) * 10 + int(minor)


def _pip_folders(name: str) -> list[Path]:
    nvidia = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    return sorted(nvidia.glob(f"*/{name}"))
