"""A request: a prompt with its own options, and what has come of it so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..drafting.auto import AutoDrafter
from ..text.detokenizer import Detokenizer, special_ids
from ..text.prompts import EncodedPrompt
from ..text.stopping import FinishReason, StopTokens
from .continuation import Continuation
from .options import Options
from .results import Clock, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from ..drafting.drafter import Drafter
    from .model import Model

_CONTEXT_TOKENS = 4


class Request:
    """What was asked for, and what has come of it. Made by `Engine.add`.

    `sequence` is the session's sequence that it has while it runs, -1 before and after. A
    request's text depends on its prompt, options and seed alone, never on what runs beside it.
    """

    def __init__(
        self,
        model: Model,
        prompt: EncodedPrompt,
        options: Options,
        seed: int | None,
        drafter: Drafter,
        max_length: int,
        *,
        incremental: bool = False,
        keep_hidden: bool = False,
    ) -> None:
        """`max_length`: tokens that its sequence has room for. `incremental`: text is made as
        tokens arrive. `keep_hidden`: the states that decided the tokens are kept."""
        self.prompt = prompt
        self.options = options
        self.seed = seed
        self.drafter = drafter
        self.sequence = -1
        self.unfed: tuple[int, ...] = ()  # tokens of the prompt that have no K/V yet
        # Of its sequence, before it came.
        self.length_before, self.root_before = 0, -1
        self.error: Exception | None = None
        self.is_cancelled = False
        stop_ids = control_ids(model, options.stop)
        end_ids = frozenset() if options.ignore_eos else model.eos_ids
        self.end_ids = sorted(end_ids | set(stop_ids.values()))
        # Raw text goes on in the middle of a line, a chat's answer is a text of its own.
        context = () if prompt.whole else prompt.tokens[-_CONTEXT_TOKENS:]
        self.continuation = Continuation(
            StopTokens(end_ids, frozenset(stop_ids.values()), options.max_new_tokens, max_length),
            [string for string in options.stop if string not in stop_ids],
            Detokenizer(model.text_decoder, context),
            incremental=incremental,
            num_logprobs=options.logprobs,
            keep_hidden=keep_hidden,
        )
        self.continuation.stats.prompt_tokens = len(prompt.tokens)
        # A GPU's steps are one piece of work unless they are profiled.
        self._by_phase = options.profile or model.device == "cpu"
        self._placed_at: dict[str, float] = {}
        self._kernels_before: dict[str, float] = {}
        self._started_at: dict[str, float] = {}
        self._prefill_seconds = 0.0

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it waits or runs."""
        return self.continuation.finish_reason

    @property
    def has_started(self) -> bool:
        """Whether its first token has been decided."""
        return bool(self.continuation.tokens)

    @property
    def result(self) -> Result:
        """The finished result. RuntimeError before the request has ended."""
        return self.continuation.result(self.seed)

    @property
    def end_of_text(self) -> tuple[int, int]:
        """Where its sequence's text ends: (tokens in the cache, the token after them or -1)."""
        if self.has_started:
            return self.continuation.position, self.continuation.tokens[-1]
        return self.length_before, self.root_before

    @property
    def tokens(self) -> Sequence[int]:
        """The new tokens so far."""
        return self.continuation.tokens

    @property
    def hidden(self) -> Sequence[npt.NDArray[np.float32]]:
        """The final-norm outputs [H] that decided the tokens, if they are kept; else none."""
        return self.continuation.hidden

    def take_text(self) -> str:
        """The text settled since the last call, of a request that was added with `stream=True`."""
        return self.continuation.take_text()

    def place(self, b: int, length: int, unfed: Sequence[int], clock: Clock) -> None:
        """Takes a session's sequence b, whose cache holds `length` tokens, those before `unfed`."""
        self.sequence = b
        self.length_before = length
        self.unfed = tuple(unfed)
        self.continuation.stats.reused_tokens = max(len(self.prompt.tokens) - len(unfed), 0)
        self._placed_at = dict(clock.seconds)
        self._kernels_before = dict(clock.kernels)

    def start_clock(self, clock: Clock) -> None:
        """Books the time up to its first token as the prompt's."""
        self._started_at = dict(clock.seconds)
        self._prefill_seconds = sum(clock.seconds.values()) - sum(self._placed_at.values())

    def fail(self, error: Exception) -> None:
        """Ends with what is there: something else went wrong."""
        self.error = self.error or error
        self.continuation.end("error")

    def book(self, clock: Clock) -> None:
        """Completes the statistics: what has been spent since it was placed is its own."""
        stats = self.continuation.stats
        stats.draft = self.drafter.name
        if isinstance(self.drafter, AutoDrafter) and 0 < stats.steps == stats.plain_steps:
            stats.note = "decoded plainly: no draft found would have paid on this machine"
        since = self._started_at or self._placed_at
        own = Clock()
        own.seconds = {phase: now - since[phase] for phase, now in clock.seconds.items()}
        own.seconds["prefill"] += self._prefill_seconds
        stats.seconds = own.report(self._by_phase)
        if self.options.profile:
            before = self._kernels_before
            spent = {name: now - before.get(name, 0.0) for name, now in clock.kernels.items()}
            stats.kernels = {name: seconds for name, seconds in spent.items() if seconds > 0}


def control_ids(model: Model, stop: Sequence[str]) -> dict[str, int]:
    """Stop strings that are the spelling of a control token, which no text contains: their ids."""
    vocab = model.config.vocab_size
    special = frozenset(token for token in special_ids(model.text_decoder) if token < vocab)
    found = {string: model.tokenizer.convert_tokens_to_ids(string) for string in stop}
    return {string: token for string, token in found.items() if token in special}
