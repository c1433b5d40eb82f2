"""What a generation returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from ..text.stopping import FinishReason

STEP_PHASES = ("propose", "verify", "accept", "compact")
PHASES = ("prefill", *STEP_PHASES, "host")


class Clock:
    """Seconds by phase; `lap(phase)` books the time since the last lap. And by kernel, if told."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.kernels: dict[str, float] = {}
        self._last = perf_counter()

    def restart(self) -> None:
        """Forgets the time since the last lap (spent in the caller's own code)."""
        self._last = perf_counter()

    def lap(self, phase: str) -> float:
        """Books the time since the last lap on `phase` and returns it."""
        now = perf_counter()
        elapsed = now - self._last
        self.seconds[phase] += elapsed
        self._last = now
        return elapsed

    def report(self, by_phase: bool) -> dict[str, float]:
        """The seconds of each phase; or with those of a step as one, "step"."""
        if by_phase:
            return dict(self.seconds)
        step = sum(self.seconds[phase] for phase in STEP_PHASES)
        return {"prefill": self.seconds["prefill"], "step": step, "host": self.seconds["host"]}


@dataclass
class Stats:
    """How a continuation was decoded.

    accepted[i]: steps that emitted i tokens; tokens after a stop are not counted. `plain_steps`:
    steps without any draft. `seconds`: by phase, those of the whole batch; a GPU's steps are one
    phase, "step", unless `profile=True`, which also fills `kernels`: seconds by kernel, those of
    the whole batch with its prefill. `draft`: where drafts came from, or "none". `note`: why it was
    decoded as it was, if there is something to say.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    steps: int = 0
    plain_steps: int = 0
    accepted: list[int] = field(default_factory=lambda: [0, 0])
    seconds: dict[str, float] = field(default_factory=dict)
    kernels: dict[str, float] = field(default_factory=dict)
    draft: str = "none"
    note: str = ""

    def count_step(self, num_tokens: int, plain: bool) -> None:
        """Books a step that emitted `num_tokens` tokens."""
        self.steps += 1
        self.plain_steps += plain
        if num_tokens >= len(self.accepted):
            self.accepted += [0] * (num_tokens + 1 - len(self.accepted))
        self.accepted[num_tokens] += 1

    @property
    def tokens_per_step(self) -> float:
        """Tokens emitted by steps per step; 1 for plain decoding (and where there was no step)."""
        emitted = sum(count * steps for count, steps in enumerate(self.accepted))
        return emitted / self.steps if self.steps else 1.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens emitted by steps per second outside the prefill; 0 where there was no step."""
        seconds = sum(time for phase, time in self.seconds.items() if phase != "prefill")
        emitted = sum(count * steps for count, steps in enumerate(self.accepted))
        return emitted / seconds if seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; "kernels" only if they were timed."""
        values = {
            "prompt_tokens": self.prompt_tokens,
            "reused_tokens": self.reused_tokens,
            "steps": self.steps,
            "plain_steps": self.plain_steps,
            "tokens_per_step": self.tokens_per_step,
            "tokens_per_second": self.tokens_per_second,
            "accepted": self.accepted,
            "seconds": self.seconds,
            "draft": self.draft,
            "note": self.note,
        }
        return values | {"kernels": self.kernels} if self.kernels else values


@dataclass(frozen=True)
class TokenLogprob:
    """The natural log-probability of an emitted token, before temperature and truncation, and
    the `n` most likely tokens there as (token, log-probability), best first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass
class Result:
    """A finished continuation; `str(result)` is its text.

    `tokens` holds the new tokens only, the end token included. `text` leaves out the end token,
    special tokens, and a stop string with all after it. `seed`: the one used; None if greedy
    decoding was given none. `logprobs`: one entry per token, if they were asked for.
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    seed: int | None
    stats: Stats
    logprobs: list[TokenLogprob] | None = None

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values: dict[str, Any] = {
            "text": self.text,
            "tokens": self.tokens,
            "finish_reason": self.finish_reason,
            "seed": self.seed,
            "stats": self.stats.to_json(),
        }
        if self.logprobs is not None:
            values["logprobs"] = [
                {"token": entry.token, "logprob": entry.logprob, "top": entry.top}
                for entry in self.logprobs
            ]
        return values
