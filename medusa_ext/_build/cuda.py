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

    nvcc: Path
    home: Path
    version: str
    arches: tuple[str, ...]

    def gencode(self) -> list[str]:
        """nvcc's flags for the architectures."""
        flags = []
        for arch in self.arches:
            number = arch.removesuffix("+PTX").replace(".", "")
            flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
            if arch.endswith("+PTX"):
                flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
        return flags

    def include_directories(self) -> list[Path]:
        """The toolkit's headers, then those of pip's nvidia packages (cublas, cusparse, …)."""
        return [path for path in (self.home / "include", *_pip_folders("include")) if path.is_dir()]

    def libraries(self) -> list[Path]:
        """libcudart and libcublasLt, by path: pip's packages lack the names without a version.

        Raises BuildError naming one that is not there.
        """
        folders = (*_pip_folders("lib"), self.home / "lib64", self.home / "lib")
        found = []
        for name in ("libcudart.so*", "libcublasLt.so*"):
            paths = [path for folder in folders for path in sorted(folder.glob(name))]
            if not paths:
                looked = ", ".join(map(str, folders))
                raise BuildError(f"medusa_ext: linking the CUDA backend needs {name} in {looked}")
            found.append(paths[0])
        return found


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
    home = toolkit_home(path)
    if settings.cuda_arch_list:
        arches = parse_arch_list(settings.cuda_arch_list)
        return Cuda(path, home, version, arches), f"TORCH_CUDA_ARCH_LIST={settings.cuda_arch_list}"
    devices = device_arches()
    if devices:
        arches = tuple(_supported(arch, known_arches(path)) for arch in devices)
        return Cuda(path, home, version, tuple(dict.fromkeys(arches))), "a CUDA device is present"
    if settings.cuda:
        known = known_arches(path)
        arches = tuple(a for a in DEFAULT_ARCHES if _number(a) in known)
        return Cuda(path, home, version, arches), "MEDUSA_CUDA=1"
    return None, "no CUDA device is present (MEDUSA_CUDA=1 builds for all architectures)"


def find_nvcc(settings: Settings, torch_cuda: str) -> tuple[Path, str] | str:
    """nvcc of torch's major version and its own version; or why there is none."""
    homes = [Path(settings.cuda_home)] if settings.cuda_home else []
    candidates = [home / "bin" / "nvcc" for home in homes]
    on_path = shutil.which("nvcc")
    candidates += [Path(on_path).resolve()] if on_path else []
    candidates += [Path("/usr/local/cuda/bin/nvcc")]
    candidates += [folder.parent / "bin" / "nvcc" for folder in _pip_folders("include")]
    wrong = ""
    for path in candidates:
        version = nvcc_version(path) if os.access(path, os.X_OK) else ""
        if version and version.split(".")[0] == torch_cuda.split(".")[0]:
            return path, version
        wrong = wrong or (f" ({path} is {version})" if version else "")
    return f"no nvcc {torch_cuda.split('.')[0]}.x found for torch's CUDA {torch_cuda}{wrong}"


def nvcc_version(path: Path) -> str:
    """ "13.0" from `nvcc --version`; empty if it does not run."""
    try:
        text = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else ""


def toolkit_home(nvcc: Path) -> Path:
    """The folder that nvcc takes its headers from; nvcc itself may be a script elsewhere."""
    command = [str(nvcc), "--dryrun", "-E", "-x", "cu", os.devnull]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"^#\$ TOP=(.+)$", text, re.MULTILINE)
    return Path(found.group(1)).resolve() if found else nvcc.resolve().parent.parent


def known_arches(nvcc: Path) -> set[int]:
    """The architectures that this nvcc can compile for, as 90 for sm_90."""
    text = subprocess.run(
        [nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True
    ).stdout
    return {int(number) for number in re.findall(r"sm_(\d+)\b", text)}


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
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    arches = []
    for index in range(count.value):
        device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        status = nvml.nvmlDeviceGetCudaComputeCapability(
            device, ctypes.byref(major), ctypes.byref(minor)
        )
        if status == 0:
            arches.append(f"{major.value}.{minor.value}")
    nvml.nvmlShutdown()
    return tuple(dict.fromkeys(arches))


def runs_on(built: list[str], devices: tuple[str, ...]) -> bool:
    """Whether code built for these architectures runs on every device."""
    return all(any(_covers(arch, device) for arch in built) for device in devices)


def _covers(arch: str, device: str) -> bool:
    built, wanted = _number(arch), _number(device)
    same_major = built // 10 == wanted // 10 and built <= wanted
    return same_major or (arch.endswith("+PTX") and built <= wanted)


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
