"""Builds and finds the native modules: `medusa_ext._C`, the engine, and `_torch`, the operators.

torch's cpp_extension compiles them, at first use and for setup.py, which imports this package by
itself. Here is what that lacks. Finding a binary needs torch's version file, not torch.
"""

from .cache import build_folder
from .compile import torch_environment
from .cuda import find_nvcc
from .loader import AHEAD_OF_TIME_INFO, ExtensionFinder, Found, look, obtain
from .settings import BuildError, Settings, cache_directory
from .sources import ENGINE, MODULES, NOT_IN_THE_MODULE, OPERATORS, Sources, find_root, in_module
from .toolchain import HOST_FLAGS, NVCC_FLAGS, check_tools, find_compiler, make_plan

__all__ = [
    "AHEAD_OF_TIME_INFO",
    "ENGINE",
    "HOST_FLAGS",
    "MODULES",
    "NOT_IN_THE_MODULE",
    "NVCC_FLAGS",
    "OPERATORS",
    "BuildError",
    "ExtensionFinder",
    "Found",
    "Settings",
    "Sources",
    "build_folder",
    "cache_directory",
    "check_tools",
    "find_compiler",
    "find_nvcc",
    "find_root",
    "in_module",
    "look",
    "make_plan",
    "obtain",
    "torch_environment",
]
