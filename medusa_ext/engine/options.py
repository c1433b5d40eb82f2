"""The options of a generation, checked once."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..drafting.drafter import Drafter
from ..drafting.trees import MAX_NODES, Tree
from .arguments import check_bool, check_choice, integer, number

DRAFTS: Final = ("auto", "heads", "lookup", "both")
ACCEPTANCES: Final = ("lossless", "typical")
_MAX_SEED: Final = (1 << 63) - 1
# Smaller ones are greedy: logits divided by them would leave float32.
_LEAST_TEMPERATURE: Final = 1e-30


@dataclass(frozen=True)
class Options:
    """Checked options of `generate`; see there for their meaning."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    acceptance: str = "lossless"
    epsilon: float = 0.09
    delta: float = 0.3
    seed: int | tuple[int, ...] | None = None
    tree: str | int | Tree | None = "auto"
    draft: str | Drafter = "auto"
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int = 0
    profile: bool = False

    @classmethod
    def checked(cls, **given: Any) -> Options:
        """The options after checking type and range of each.

        Raises TypeError or ValueError naming the argument, what it needs and what it got.
        """
        stop = given.pop("stop", None)
        seed = given.pop("seed", None)
        for name, (low, high) in _INTEGERS.items():
            if name in given:
                given[name] = integer(name, given[name], low, high)
        for name, (fits, need) in _NUMBERS.items():
            if name in given:
                given[name] = number(name, given[name], fits, need)
        if given.get("temperature", 1.0) < _LEAST_TEMPERATURE:
            given["temperature"] = 0.0
        if "acceptance" in given:
            check_choice("acceptance", given["acceptance"], ACCEPTANCES)
        if "draft" in given and not hasattr(given["draft"], "propose"):
            check_choice("draft", given["draft"], DRAFTS)
        for name in ("ignore_eos", "profile"):
            check_bool(name, given.get(name, False))
        _check_tree(given.get("tree"))
        return cls(**given, stop=_stop_strings(stop), seed=_seed(seed))

    def seeds(self, batch: int) -> list[int] | None:
        """One seed per sequence, drawn if none was given; None for greedy without a seed."""
        if self.seed is None:
            if self.temperature == 0.0:
                return None
            first = secrets.randbits(32)
            return [first + b for b in range(batch)]
        if isinstance(self.seed, int):
            return [(self.seed + b) & _MAX_SEED for b in range(batch)]
        if len(self.seed) != batch:
            raise ValueError(f"seed: needs one per prompt ({batch}), got {len(self.seed)}")
        return list(self.seed)


_INTEGERS: Final = {
    "max_new_tokens": (1, 1 << 30),
    "top_k": (0, 1 << 30),
    "logprobs": (0, 1000),
}
_NUMBERS: Final = {
    "temperature": (lambda x: 0.0 <= x <= 1000.0, "a number in [0, 1000]"),
    "top_p": (lambda x: 0.0 < x <= 1.0, "a number in (0, 1]"),
    "epsilon": (lambda x: 0.0 <= x <= 1.0, "a number in [0, 1]"),
    "delta": (lambda x: 0.0 <= x <= 1.0, "a number in [0, 1]"),
}


def _check_tree(tree: Any) -> None:
    if tree is None or isinstance(tree, Tree) or (isinstance(tree, str) and tree == "auto"):
        return
    if isinstance(tree, bool) or not isinstance(tree, int):
        need = "needs 'auto', None, a number of nodes or a Tree"
        kind = ValueError if isinstance(tree, str) else TypeError
        raise kind(f"tree: {need}, got {tree!r}")
    integer("tree", tree, 1, MAX_NODES)


def _stop_strings(stop: Any) -> tuple[str, ...]:
    if stop is None:
        return ()
    strings = (stop,) if isinstance(stop, str) else stop
    if not isinstance(strings, Sequence) or not all(isinstance(s, str) for s in strings):
        raise TypeError(f"stop: needs a string or a list of strings, got {stop!r}")
    if not all(strings):
        raise ValueError(f"stop: needs strings that are not empty, got {stop!r}")
    return tuple(strings)


def _seed(seed: Any) -> int | tuple[int, ...] | None:
    if seed is None:
        return None
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        return tuple(integer("seed", each, 0, _MAX_SEED) for each in seed)
    return integer("seed", seed, 0, _MAX_SEED)
