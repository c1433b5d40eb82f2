"""Native probes, compiled when first used: peaks of the machine, parts of a step."""

from .library import ProbeError, limits_library, profile_library

__all__ = ["ProbeError", "limits_library", "profile_library"]
