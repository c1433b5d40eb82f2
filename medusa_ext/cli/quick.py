"""Plain decoding against decoding with drafts, taking turns on the same prompts."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from .. import _C
from ..api import generate
from ..drafting.trees import Tree
from ..engine.model import Model
from ..engine.results import PHASES, Result
from .machine import Machine, measure_machine

PROMPTS = (
    "Explain why the sky is blue, in simple words.",
    "Write a Python function that checks whether a string is a palindrome, then explain it.",
    "List the planets of the solar system, and say one fact about each of them.",
)


@dataclass(frozen=True)
class Side:
    """One way of decoding: medians over the rounds, each over all prompts."""

    name: str
    tokens_per_second: float
    tokens_per_step: float
    milliseconds: dict[str, float]
    note: str

    @classmethod
    def of(cls, name: str, rounds: list[list[Result]]) -> Side:
        """Summarises rounds of results. Milliseconds are per step, prefill's per prompt."""
        speeds, splits = [], []
        for results in rounds:
            emitted = sum(len(result.tokens) - 1 for result in results)
            steps = max(sum(result.stats.steps for result in results), 1)
            spent = {p: sum(r.stats.seconds[p] for r in results) for p in PHASES}
            speeds.append(emitted / sum(spent[p] for p in PHASES if p != "prefill"))
            per = {p: len(results) if p == "prefill" else steps for p in PHASES}
            splits.append({p: 1e3 * spent[p] / per[p] for p in PHASES})
        every = [result for results in rounds for result in results]
        emitted = sum(len(result.tokens) - 1 for result in every)
        return cls(
            name,
            median(speeds),
            emitted / max(sum(result.stats.steps for result in every), 1),
            {p: median(split[p] for split in splits) for p in PHASES},
            every[-1].stats.note,
        )


@dataclass(frozen=True)
class Report:
    """Both sides, and whether they gave the same tokens everywhere."""

    model: str
    plain: Side
    drafted: Side
    same_tokens: bool
    bytes_per_token: int
    machine: Machine | None = None

    @property
    def speedup(self) -> float:
        """Drafted over plain tokens per second."""
        return self.drafted.tokens_per_second / self.plain.tokens_per_second

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sides = {side.name: vars(side) for side in (self.plain, self.drafted)}
        return {
            "model": self.model,
            "sides": sides,
            "speedup": self.speedup,
            "same_tokens": self.same_tokens,
            "bytes_per_token": self.bytes_per_token,
            "machine": self.machine and self.machine.to_json(),
        }

    def table(self) -> str:
        """The figures as text."""
        lines = [f"{'':10} {'tokens/s':>9} {'tokens/step':>12}  ms per step: " + ", ".join(PHASES)]
        for side in (self.plain, self.drafted):
            split = "  ".join(f"{side.milliseconds[phase]:.3f}" for phase in PHASES)
            speed = f"{side.tokens_per_second:9.1f} {side.tokens_per_step:12.2f}"
            lines.append(f"{side.name:10} {speed}  {split}")
        same = "the same tokens" if self.same_tokens else "DIFFERENT TOKENS"
        lines.append(f"speed-up {self.speedup:.2f}, {same}; prefill is per prompt")
        if self.drafted.note:
            lines.append(self.drafted.note)
        if self.machine is not None:
            read = self.bytes_per_token * self.plain.tokens_per_second
            share = read / self.machine.read_bytes_per_second
            lines.append(
                f"plain decoding reads {read / 1e9:.1f} GB/s of weights, {share:.0%} of the "
                f"{self.machine.read_bytes_per_second / 1e9:.1f} GB/s that {self.machine.threads} "
                "threads read here"
            )
        return "\n".join(lines)


def run_quick(
    model: Model,
    *,
    max_new_tokens: int = 64,
    rounds: int = 3,
    tree: str | int | Tree | None = "auto",
    draft: str = "auto",
    limits: bool = False,
) -> Report:
    """Measures both sides greedily; the sides take turns so that a drifting machine hits both.

    `limits` also measures how fast the machine reads memory, which bounds plain decoding.
    """
    generate(model, "Warm up.", 4, tree=tree, draft=draft)
    prompts: list[Any] = list(PROMPTS)
    if getattr(model.tokenizer, "chat_template", None):
        prompts = [[{"role": "user", "content": text}] for text in PROMPTS]
    plain: list[list[Result]] = []
    drafted: list[list[Result]] = []
    for _ in range(rounds):
        plain.append([])
        drafted.append([])
        for prompt in prompts:
            plain[-1].append(generate(model, prompt, max_new_tokens, tree=None))
            drafted[-1].append(generate(model, prompt, max_new_tokens, tree=tree, draft=draft))
    same = all(
        result.tokens == other.tokens
        for results, others in zip(plain, drafted, strict=True)
        for result, other in zip(results, others, strict=True)
    )
    return Report(
        model.name,
        Side.of("plain", plain),
        Side.of("drafted", drafted),
        same,
        model.native.packed_bytes,
        measure_machine(_C.num_threads()) if limits else None,
    )
