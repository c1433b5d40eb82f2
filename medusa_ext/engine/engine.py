"""The engine: requests join and leave a batch between its steps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..text.prompts import encode
from .decoding import Chunk, step_all
from .drafters import make_drafter
from .model import DEFAULT_MAX_NODES, Model
from .options import Options
from .request import Request
from .results import Clock
from .row_budget import MOST_ROWS, RowBudget
from .session import Session

if TYPE_CHECKING:
    from ..drafting.drafter import Drafter

DEFAULT_SLOTS: Final = 8
DEFAULT_SLOWDOWN: Final = 2.0


class Engine:
    """Decodes requests together: each joins as soon as there is a sequence for it.

    A waiting prompt enters in chunks that share the forward with the trees of those who decode,
    so that nobody's text stalls. A request's tokens are those of the same request alone, whatever
    runs beside it (acceptance="typical": for a fixed tree). One thread makes the steps; any may
    add and cancel.
    """

    def __init__(
        self,
        model: Model | Session,
        slots: int = DEFAULT_SLOTS,
        *,
        max_length: int | None = None,
        max_nodes: int = DEFAULT_MAX_NODES,
        kv_memory: int | None = None,
        max_slowdown: float = DEFAULT_SLOWDOWN,
    ) -> None:
        """
        Args:
            model: a model, or a session whose sequences are the slots.
            slots: requests that run at once; the others wait in the order in which they came, as
                do those that the cache has no room for.
            max_length: tokens of a request, its prompt included; see `Model.session`.
            max_nodes: nodes of the largest tree that a request may ask for.
            kv_memory: bytes that the cache may take; see `Model.session`.
            max_slowdown: a step that a prompt enters takes at most so many times as long as the
                others; `math.inf`: prompts go first.

        Raises:
            ValueError, MemoryError: as `Model.session`.
        """
        if isinstance(model, Model):
            model = model.session(slots, max_length, max_nodes, kv_memory)
        self._session = model
        self.clock = Clock()
        self._budget = RowBudget(max_slowdown)
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._free = set(range(model.batch))
        self._drafters: dict[Any, Drafter] = {}
        self._lock = threading.Lock()

    @property
    def model(self) -> Model:
        """The model that decodes."""
        return self._session.model

    @property
    def waiting(self) -> tuple[Request, ...]:
        """Requests that have no sequence yet, first come first."""
        with self._lock:
            return tuple(self._waiting)

    @property
    def running(self) -> tuple[Request, ...]:
        """Requests that have a sequence."""
        return tuple(self._running)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._running and not self._waiting

    def add(
        self,
        prompt: Any,
        max_new_tokens: int = 256,
        *,
        stream: bool = False,
        keep_hidden: bool = False,
        **options: Any,
    ) -> Request:
        """Puts a request for a single prompt into the queue.

        Takes the arguments of `generate`. `stream`: the request's `take_text` hands out its text
        as it grows. `keep_hidden`: its `hidden` holds the states that decided its tokens.

        Raises:
            TypeError, ValueError: an argument; the message names it, what it needs and what it got.
        """
        checked = Options.checked(max_new_tokens=max_new_tokens, **options)
        model, session = self.model, self._session
        encoded = encode(model.tokenizer, model.config.vocab_size, prompt, continues=False)
        session.check_room(0, len(encoded.tokens))
        seeds = checked.seeds(1)
        request = Request(
            model,
            encoded,
            checked,
            seeds[0] if seeds else None,
            self._drafter(checked),
            session.max_length,
            incremental=stream,
            keep_hidden=keep_hidden,
        )
        with self._lock:
            self._waiting.append(request)
        return request

    def cancel(self, request: Request) -> None:
        """Ends a request, with what it has, before the next step; nothing if it has ended."""
        request.is_cancelled = True

    def step(self) -> list[Request]:
        """Makes a step; returns the requests that it brought on, those that it ended among them.

        What fails in one request's own drafter ends that request (finish reason "error"; its
        `error` says why), not the others. What fails in the step itself ends all that run, and is
        raised.
        """
        self.clock.restart()
        touched = self._drop_cancelled()
        self._place()
        decoding = [request for request in self._running if request.has_started]
        entering = [request for request in self._running if not request.has_started]
        if entering and (not decoding or self._budget.prompts_first):
            decoding = []
        chunks = self._chunks(entering, self._budget.rows if decoding else MOST_ROWS)
        if decoding or chunks:
            try:
                self._step(decoding, chunks)
            except Exception as error:
                self.fail(error)
                raise
            touched += [*decoding, *(chunk.request for chunk in chunks)]
            self._release_ended()
        return touched

    def restore(self) -> None:
        """Gives the sequences of prompts that were cut short the text back that they had."""
        for request in self._running:
            if not request.has_started:
                self._session.native.truncate(request.sequence, *request.end_of_text)

    def fail(self, error: Exception) -> None:
        """Ends all that run, with what they have."""
        for request in self._running:
            request.fail(error)
        self._release_ended()

    def run(self) -> Iterator[Request]:
        """Makes steps until nothing is left to do, and yields requests as they end."""
        while not self.is_idle:
            for request in self.step():
                if request.finish_reason is not None:
                    yield request

    def start(self, request: Request, b: int, kept: int, unfed: Sequence[int]) -> None:
        """Gives sequence b to a request: the text's first `kept` tokens stay, `unfed` follow."""
        native, options = self._session.native, request.options
        request.root_before = native.roots[b] if native.lengths[b] == kept else -1
        native.truncate(b, kept)
        native.set_sampling(
            b,
            options.temperature,
            options.top_p,
            min(options.top_k, self.model.config.vocab_size),
            request.seed or 0,
            options.acceptance,
            options.epsilon,
            options.delta,
        )
        native.set_end_tokens(b, request.end_ids)
        native.keep_logits(b, options.logprobs > 0)
        self.clock.kernels = native.kernel_seconds()
        request.place(b, kept, unfed, self.clock)
        self._running.append(request)
        self._free.discard(b)
        native.set_profiling(any(request.options.profile for request in self._running))

    def _place(self) -> None:
        """Gives free sequences to waiting requests, first come first, while the cache has room.
        Each starts from the longest start of its prompt that another text has left there."""
        native = self._session.native
        while self._free and (request := self._first_waiting()):
            for b in self._free:
                native.free(b)
            tokens = np.asarray(request.prompt.tokens, np.int32)
            most = min(len(tokens) + request.options.max_new_tokens, self._session.max_length)
            if not native.can_begin(tokens, most):
                return
            with self._lock:
                self._waiting.popleft()
            b = min(self._free)
            kept = native.begin(b, tokens, most)
            self.start(request, b, kept, request.prompt.tokens[kept:])

    def _first_waiting(self) -> Request | None:
        with self._lock:
            return self._waiting[0] if self._waiting else None

    def _chunks(self, entering: Sequence[Request], rows: int) -> list[Chunk]:
        """The next tokens of prompts, first come first, `rows` of them in all."""
        chunks = []
        for request in entering:
            tokens = request.unfed[:rows]
            if tokens:
                chunks.append(Chunk(request, tokens, len(tokens) == len(request.unfed)))
            rows -= len(tokens)
        return chunks

    def _step(self, decoding: Sequence[Request], chunks: Sequence[Chunk]) -> None:
        # A step of prompts alone is no step of decoding: its time is the prompts'.
        clock = self.clock if decoding else Clock()
        seconds = step_all(self._session.native, decoding, chunks, clock)
        if decoding:
            self._budget.observe(sum(len(chunk.tokens) for chunk in chunks), seconds)
        self.clock.lap("host" if decoding else "prefill")
        if any(request.options.profile for request in self._running):
            self.clock.kernels = self._session.native.kernel_seconds()
        for chunk in chunks:
            if chunk.is_last:
                chunk.request.start_clock(self.clock)

    def _drop_cancelled(self) -> list[Request]:
        """Ends what was cancelled since the last step."""
        with self._lock:
            dropped = [request for request in self._waiting if request.is_cancelled]
            for request in dropped:
                self._waiting.remove(request)
        dropped += [request for request in self._running if request.is_cancelled]
        for request in dropped:
            request.continuation.end("cancelled")
        self._release_ended()
        return dropped

    def _release_ended(self) -> None:
        """Frees the sequences of requests that have ended. Each is rolled back to its last token:
        that is the root, and the rows before it are in the cache, as after plain decoding."""
        for request in [ended for ended in self._running if ended.finish_reason is not None]:
            self._session.native.truncate(request.sequence, *request.end_of_text)
            self._running.remove(request)
            self._free.add(request.sequence)
            request.sequence = -1
            request.book(self.clock)

    def _drafter(self, options: Options) -> Drafter:
        """The drafter that the options ask for; requests that ask for the same share it, and what
        it has learned."""
        if not isinstance(options.draft, str):
            return make_drafter(self.model, options, self._session.max_nodes)
        key = (options.draft, options.tree)
        if key not in self._drafters:
            self._drafters[key] = make_drafter(self.model, options, self._session.max_nodes)
        return self._drafters[key]
