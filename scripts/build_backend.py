"""setuptools' build backend, fetched first where --no-build-isolation finds none or an old one.

A fresh virtual environment has setuptools 65 without `wheel` (Python 3.11) or none at all (3.12),
and pip installs no build requirement when told not to isolate.
"""

import importlib.metadata
import subprocess
import sys
import tempfile

NEEDED = (77,)


def _provide_setuptools() -> None:
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if (int(version.split(".")[0]),) >= NEEDED:
        return
    folder = tempfile.mkdtemp(prefix="medusa-ext-setuptools-")
    requirement = f"setuptools>={NEEDED[0]}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, requirement]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"medusa-ext: building needs {requirement}: pip install '{requirement}'")
    sys.path.insert(0, folder)


_provide_setuptools()

from setuptools.build_meta import *  # noqa: E402, F403
