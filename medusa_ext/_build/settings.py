"""What the environment says about building, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class BuildError(ImportError):
    """The native module can be neither found nor compiled; the message says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """The build's environment variables (the table is in README.md)."""

    cache: Path
    disable_jit: bool = False
    cuda: bool | None = None  # None: built if a device is present
    cuda_arch_list: str = ""  # "8.0;9.0+PTX", as torch reads it
    cuda_home: str = ""
    compiler: str = ""
    jobs: int = 0  # 0: one per processor this process may use

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Settings:
        """Reads the variables; raises BuildError naming the one that has an unusable value."""
        return Settings(
            cache=cache_directory(environment),
            disable_jit=bool(_flag(environment, "MEDUSA_DISABLE_JIT")),
            cuda=_flag(environment, "MEDUSA_CUDA"),
            cuda_arch_list=environment.get("TORCH_CUDA_ARCH_LIST", "").strip(),
            cuda_home=environment.get("CUDA_HOME", "") or environment.get("CUDA_PATH", ""),
            compiler=environment.get("CXX", "").strip(),
            jobs=_count(environment, "MAX_JOBS"),
        )

    def num_jobs(self) -> int:
        """How many compilers may run at once."""
        return self.jobs or len(os.sched_getaffinity(0))


def cache_directory(environment: Mapping[str, str]) -> Path:
    """`MEDUSA_CACHE`, else `medusa_ext` in the user's cache directory."""
    if environment.get("MEDUSA_CACHE"):
        return Path(environment["MEDUSA_CACHE"]).expanduser().absolute()
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "medusa_ext"


def _flag(environment: Mapping[str, str], name: str) -> bool | None:
    value = environment.get(name, "").strip().lower()
    values = {"": None, "0": False, "off": False, "false": False}
    values |= {"1": True, "on": True, "true": True}
    if value not in values:
        raise BuildError(f"{name}: needs 0 or 1, got {value!r}")
    return values[value]


def _count(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "").strip()
    if value and (not value.isdigit() or int(value) < 1):
        raise BuildError(f"{name}: needs a whole number from 1 up, got {value!r}")
    return int(value or 0)
