"""Builds and finds the native modules: `medusa_ext._C`, the engine, and `_torch`, the operators.

Needs only the standard library and torch's files; torch itself is never imported here.

setup.py imports this package by itself, so that both ways of building, ahead of time and on the
fly, are the same code.
"""

from .ahead import build_ahead_of_time
from .cache import build_folder
from .cuda import find_nvcc
from .loader import ExtensionFinder, Found, look, obtain
from .settings import BuildError, Settings, cache_directory
from .sources import MODULES, NOT_IN_THE_MODULE, Sources, find_root, in_module
from .toolchain import find_compiler

__all__ = [
    "MODULES",
    "NOT_IN_THE_MODULE",
    "BuildError",
    "ExtensionFinder",
    "Found",
    "Settings",
    "Sources",
    "build_ahead_of_time",
    "build_folder",
    "cache_directory",
    "find_compiler",
    "find_nvcc",
    "find_root",
    "in_module",
    "look",
    "obtain",
]
