"""Builds and finds the native module `medusa_ext._C`. Needs only the standard library and torch.

setup.py imports this package by itself, so that both ways of building, ahead of time and on the
fly, are the same code.
"""

from .ahead import build_ahead_of_time
from .loader import ExtensionFinder, look, obtain
from .settings import BuildError, Settings, cache_directory
from .sources import Sources, find_root

__all__ = [
    "BuildError",
    "ExtensionFinder",
    "Settings",
    "Sources",
    "build_ahead_of_time",
    "cache_directory",
    "find_root",
    "look",
    "obtain",
]
