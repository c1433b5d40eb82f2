"""Builds and finds the native module `medusa_ext._C`. Needs only the standard library and torch.

setup.py imports this package by itself, so that both ways of building, ahead of time and on the
fly, are the same code.
"""

from .ahead import build_ahead_of_time
from .cache import build_folder
from .cuda import find_nvcc
from .loader import ExtensionFinder, Found, look, obtain
from .settings import BuildError, Settings, cache_directory
from .sources import NOT_IN_THE_MODULE, Sources, find_root
from .toolchain import find_compiler

__all__ = [
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
    "look",
    "obtain",
]
