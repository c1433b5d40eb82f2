"""Builds the extension ahead of time where torch is installed; else the sources go in alone.

Without torch (a build in isolation) medusa_ext compiles them at first use.
"""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.absolute()
sys.path.append(str(ROOT / "medusa_ext"))
import _build  # noqa: E402  (the package itself would need torch's run-time dependencies)


class BuildPython(build_py):
    """Copies the package and, beside it, the native sources."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        target = Path(self.build_lib) / "medusa_ext"
        # An earlier build's files would end up in the wheel.
        shutil.rmtree(target, ignore_errors=True)
        super().run()
        left_out = shutil.ignore_patterns(*_build.NOT_IN_THE_MODULE)
        shutil.copytree(ROOT / "csrc", target / "csrc", ignore=left_out)


class BuildExtension(build_ext):
    """Compiles with the same code as the build at first use."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        settings = _build.Settings.from_environment(os.environ)
        work = Path(self.build_temp).absolute()
        try:
            module = ext.name.rpartition(".")[2]
            _build.build_ahead_of_time(ROOT / "csrc", target, work, settings, module)
        except _build.BuildError as error:
            sys.exit(str(error))


def extensions() -> list[Extension]:
    """The native modules with their sources."""
    listed = _build.Sources.read(ROOT / "csrc").listed
    return [
        Extension(
            f"medusa_ext.{module}",
            [f"csrc/{name}" for name in listed if _build.in_module(name, module)],
        )
        for module in _build.MODULES
    ]


setup(
    ext_modules=extensions() if find_spec("torch") else [],
    cmdclass={"build_py": BuildPython, "build_ext": BuildExtension},
    # CMake's build folder is build/.
    options={"build": {"build_base": "build/python"}},
)
