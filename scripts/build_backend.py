"""setuptools' build backend; what it needs is fetched where --no-build-isolation finds none.

A fresh virtual environment has setuptools 65 without `wheel` (Python 3.11) or none at all (3.12),
and pip installs no build requirement when told not to isolate.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile

NEEDED = {"setuptools": (77,)}
if importlib.util.find_spec("torch"):  # there will be something to compile
    NEEDED |= {"ninja": (1,), "pybind11": (2, 13)}


def _provide() -> None:
    missing = [name for name, least in NEEDED.items() if _version(name) < least]
    if not missing:
        return
    folder = tempfile.mkdtemp(prefix="medusa-ext-build-")
    requirements = [f"{name}>={'.'.join(map(str, NEEDED[name]))}" for name in missing]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
    if subprocess.run([*command, *requirements]).returncode != 0:
        sys.exit(f"medusa-ext: building needs more: pip install {' '.join(requirements)}")
    sys.path.insert(0, folder)
    os.environ["PATH"] = os.pathsep.join((f"{folder}/bin", os.environ.get("PATH", os.defpath)))


def _version(name: str) -> tuple[int, ...]:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return (0,)
    return tuple(int(part) for part in version.split(".")[:2])


_provide()

from setuptools.build_meta import *  # noqa: E402, F403
