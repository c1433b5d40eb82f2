"""Ctrl-C within a native call, and in a chat."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from models import real, tiny

from medusa_ext import generate
from medusa_ext.cli import chat
from medusa_ext.engine.session import Session

DELAY = 0.3


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A timer's signal that is handled as Ctrl-C is."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_long_prefill_is_interrupted(interrupting: None) -> None:
    model = real()
    session = model.session(max_length=8192)
    prompt = [5] * 8000
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, DELAY)
    with pytest.raises(KeyboardInterrupt):
        generate(session, prompt, 4)
    answered = time.monotonic() - start - DELAY
    # On an idle machine a tenth of this; the whole prefill takes seconds.
    assert 0 <= answered < 1.0
    assert session.tokens() == []
    after = generate(session, prompt[:20], 5, tree=None)
    assert after.tokens == generate(model, prompt[:20], 5, tree=None).tokens


def test_chat_lives_on_when_interrupted_before_the_first_piece(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = tiny().session(max_length=250)
    options = {"max_new_tokens": 8, "ignore_eos": True}
    history: list[dict[str, str]] = []
    chat._answer(session, history, "hi", options)
    before = list(history)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "fit", interrupted)
        chat._answer(session, history, "never mind", options)
    assert history == before
    assert capsys.readouterr().err.endswith("[interrupted]\n")
    chat._answer(session, history, "go on", options)
    assert history[2]["content"] == "go on"
    assert history[3]["content"] == generate(tiny(), history[:3], 8, ignore_eos=True).text
