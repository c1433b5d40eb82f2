"""One call of generate or stream: from checked arguments to results."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ..text.prompts import EncodedPrompt, encode, split_batch
from .drafters import make_drafter, tree_nodes
from .engine import Engine
from .model import Model
from .options import Options
from .request import Request
from .results import Result
from .session import Session


class Run:
    """A generation over the sequences of a session, which it holds while it is open."""

    def __init__(
        self,
        session: Session,
        prompts: Sequence[EncodedPrompt],
        options: Options,
        *,
        is_batch: bool,
        incremental: bool,
    ) -> None:
        self.is_batch = is_batch
        self._session = session
        # Nobody reads one text while another's prompt enters.
        self._engine = Engine(session, max_slowdown=math.inf)
        drafter = make_drafter(session.model, options, session.max_nodes)
        seeds: Sequence[int | None] = options.seeds(session.batch) or [None] * session.batch
        self.requests = [
            Request(
                session.model,
                prompt,
                options,
                seed,
                drafter,
                session.max_length,
                incremental=incremental,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, target: Any, prompt: Any, options: Options, *, incremental: bool = False
    ) -> Iterator[Run]:
        """Checks and encodes the prompts and takes hold of a session for them."""
        if not isinstance(target, Model | Session):
            need = "a Model or a Session"
            raise TypeError(f"model: needs {need}, got {type(target).__name__}")
        if isinstance(target, Session):
            with target.exclusive():
                prompts, is_batch = encode_for_session(target, prompt)
                yield cls(target, prompts, options, is_batch=is_batch, incremental=incremental)
            return
        items, is_batch = split_batch(prompt)
        vocab = target.config.vocab_size
        prompts = [encode(target.tokenizer, vocab, item, continues=False) for item in items]
        longest = max(len(prompt.tokens) for prompt in prompts)
        nodes = tree_nodes(options)
        length = longest + options.max_new_tokens
        with target.borrowed_session(len(prompts), length, nodes) as session:
            with session.exclusive():
                yield cls(session, prompts, options, is_batch=is_batch, incremental=incremental)

    def steps(self) -> Iterator[None]:
        """Feeds the prompts, then decodes; yields after every step.

        An exception (of a drafter, say) carries what was decoded before it: its `results` are those
        of the sequences that had begun, with the finish reason "error" where it cut one short.
        """
        try:
            self._start()
            while not self._engine.is_idle:
                for request in self._engine.step():
                    if request.error is not None:
                        raise request.error
                yield
        except Exception as error:
            self._engine.fail(error)
            begun = [request for request in self.requests if request.has_started]
            error.results = [request.result for request in begun]  # type: ignore[attr-defined]
            raise
        finally:
            self._engine.restore()

    def results(self) -> list[Result]:
        """The finished results, in the order of the prompts; each with the seconds of the whole."""
        for request in self.requests:
            request.book(self._engine.clock)
        return [request.result for request in self.requests]

    def _start(self) -> None:
        """Gives each request the sequence of its place."""
        places = [self._session.fit(b, request.prompt) for b, request in enumerate(self.requests)]
        for b, (request, place) in enumerate(zip(self.requests, places, strict=True)):
            self._engine.start(request, b, *place)


def encode_for_session(session: Session, prompt: Any) -> tuple[list[EncodedPrompt], bool]:
    """The prompts of a session's sequences; None continues each as it stands.

    Raises ValueError unless there is one prompt per sequence.
    """
    model = session.model
    roots = session.native.roots
    if prompt is None:
        if min(roots) < 0:
            raise ValueError("prompt: a session without any text needs one, got None")
        return [EncodedPrompt((), whole=False)] * session.batch, session.batch > 1
    items, is_batch = split_batch(prompt)
    if len(items) != session.batch:
        raise ValueError(
            f"prompt: needs one for each of the session's {session.batch} sequences, "
            f"got {len(items)}"
        )
    vocab = model.config.vocab_size
    encoded = [
        encode(model.tokenizer, vocab, item, continues=root >= 0)
        for item, root in zip(items, roots, strict=True)
    ]
    return encoded, is_batch
