"""Builds the extension ahead of time where torch is installed; else the sources go in alone.

Without torch (a build in isolation) medusa_ext compiles them at first use.
"""

import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.absolute()
# CMake's build folder is build/.
BUILD = "build/python"
sys.path.append(str(ROOT / "medusa_ext"))
import _build  # noqa: E402  (the package itself would need torch's run-time dependencies)

# Without what Python's own flags would add: debug information, and a rule for overflow.
FLAGS = {"cxx": [*_build.HOST_FLAGS, "-g0", "-fno-wrapv"], "nvcc": list(_build.NVCC_FLAGS)}


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


def native_modules() -> dict[str, Any]:
    """What `setup` needs to build the native modules for the installed torch."""
    settings = _build.Settings.from_environment(os.environ)
    plan = _build.make_plan(ROOT / "csrc", settings)
    compiler = _build.find_compiler(settings)
    _build.check_tools()
    for name in plan.sources.unlisted():
        print(f"medusa_ext: csrc/{name} is not in csrc/sources.txt", file=sys.stderr)
    # torch reads it when it is imported.
    os.environ.update(_build.torch_environment(plan, compiler, settings))
    names = {f"csrc/{name}": name for name in plan.sources.select(cuda=plan.cuda is not None)}
    of_engine = [path for path, name in names.items() if _build.in_module(name, _build.ENGINE)]
    of_operators = [
        path for path, name in names.items() if _build.in_module(name, _build.OPERATORS)
    ]
    kernels = [path for path in of_engine if path in of_operators]

    engine = make_extension(plan, _build.ENGINE, of_engine)
    engine.libraries = []  # it is loaded without torch
    operators = make_extension(plan, _build.OPERATORS, sorted({*of_operators} - {*kernels}))
    command = build_command(plan, compiler, {operators.name: kernels})
    return {"ext_modules": [engine, operators], "cmdclass": {"build_ext": command}}


def make_extension(plan: Any, module: str, sources: list[str]) -> Extension:
    """A native module as torch builds it."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    (ROOT / BUILD).mkdir(parents=True, exist_ok=True)
    return (CUDAExtension if plan.cuda else CppExtension)(
        f"medusa_ext.{module}",
        sources,
        include_dirs=[str(path) for path in plan.include_directories()],
        extra_compile_args=FLAGS,
        extra_link_args=plan.link_flags(ROOT / BUILD),
    )


def build_command(plan: Any, compiler: Any, reused: dict[str, list[str]]) -> type:
    """torch's command, which also records what the modules are made from. `reused` names, by
    extension, sources that an earlier one compiles and this one is linked with too."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildModules(BuildExtension):
        def finalize_options(self) -> None:
            super().finalize_options()
            self.build_temp = os.path.join(self.build_temp, plan.objects_name(compiler))

        def build_extension(self, ext: Extension) -> None:
            names = reused.get(ext.name, [])
            ext.extra_objects = self.compiler.object_filenames(names, output_dir=self.build_temp)
            super().build_extension(ext)

        def run(self) -> None:
            super().run()
            if _build.Sources.read(ROOT / "csrc").digest != plan.sources.digest:
                sys.exit("medusa_ext: csrc changed while it was compiled; try again")
            folder = Path(self.get_ext_fullpath(self.extensions[0].name)).parent
            info = json.dumps(plan.description(compiler), indent=1)
            (folder / _build.AHEAD_OF_TIME_INFO).write_text(info)

    return BuildModules


def main() -> None:
    """Runs setuptools."""
    try:
        native = native_modules() if find_spec("torch") else {}
    except _build.BuildError as error:
        sys.exit(str(error))
    setup(
        ext_modules=native.get("ext_modules", []),
        cmdclass={"build_py": BuildPython, **native.get("cmdclass", {})},
        options={"build": {"build_base": BUILD}},
    )


main()
