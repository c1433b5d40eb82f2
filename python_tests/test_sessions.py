"""Sessions: what is kept, continued, rolled back and shared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import TINY_VOCAB, PlantedDrafter, tiny, tiny_with_heads

from medusa_ext import _C, Tree, generate, stream

PROMPT = "once upon a"


def planted(tokens: list[int], seed: int = 0, max_nodes: int = 12) -> PlantedDrafter:
    return PlantedDrafter([tokens], TINY_VOCAB, max_nodes, seed)


def ids(text: str) -> list[int]:
    found: list[int] = tiny().tokenizer.encode(text)
    return found


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_rollback_at_every_offset(temperature: float) -> None:
    """Stopped at any place inside a block and continued, the text is that of one run."""
    model = tiny()
    options = {"ignore_eos": True, "temperature": temperature, "seed": 3}
    whole = generate(model, PROMPT, 40, tree=None, **options).tokens
    truth = ids(PROMPT) + whole
    for cut in range(1, 25):
        for seed in (0, 1):
            session = model.session(max_length=128, max_nodes=12)
            first = generate(session, PROMPT, cut, draft=planted(truth, seed), **options)
            assert first.tokens == whole[:cut]
            assert session.tokens() == truth[: len(ids(PROMPT)) + cut]
            assert session.native.lengths == [len(ids(PROMPT)) + cut - 1]
            rest = generate(session, None, 40 - cut, draft=planted(truth, seed + 7), **options)
            assert first.tokens + rest.tokens == whole


@pytest.mark.parametrize("cut", [1, 2, 5, 11])
def test_appended_text(cut: int) -> None:
    """Text after a stop: as if all had been one prompt."""
    model = tiny()
    session = model.session(max_length=128)
    first = generate(session, PROMPT, cut, tree=6, draft="lookup", ignore_eos=True)
    second = generate(session, " and then", 20, tree=6, draft="lookup", ignore_eos=True)
    everything = ids(PROMPT) + first.tokens + ids(" and then")
    expected = generate(model, everything, 20, tree=None, ignore_eos=True)
    assert second.tokens == expected.tokens
    assert session.tokens() == everything + second.tokens


def test_chat_reuses_the_common_prefix() -> None:
    model = tiny()
    session = model.session(max_length=250)
    history = [{"role": "user", "content": "hello there"}]
    first = generate(session, history, 6, ignore_eos=True)
    assert first.stats.reused_tokens == 0
    history += [
        {"role": "assistant", "content": "something else than was said"},
        {"role": "user", "content": "and now?"},
    ]
    second = generate(session, history, 12, ignore_eos=True)
    fresh = generate(model, history, 12, tree=None, ignore_eos=True)
    assert second.tokens == fresh.tokens
    shared = len(ids("<user>user: hello there<end><user>assistant: "))
    assert second.stats.reused_tokens >= shared
    # The very same conversation: at least its last token is computed again.
    again = generate(session, history, 12, ignore_eos=True)
    assert again.tokens == fresh.tokens
    assert again.stats.reused_tokens == again.stats.prompt_tokens - 1


def test_reset() -> None:
    session = tiny().session(max_length=64)
    first = generate(session, PROMPT, 8, ignore_eos=True)
    session.reset()
    assert session.tokens() == []
    assert generate(session, PROMPT, 8, ignore_eos=True).tokens == first.tokens


def test_full_cache() -> None:
    session = tiny().session(max_length=24)
    out = generate(session, PROMPT, 50, ignore_eos=True)
    assert out.finish_reason == "cache"
    with pytest.raises(ValueError, match="max_length of 24 tokens, got 1 tokens after 24"):
        generate(session, None, 5)
    with pytest.raises(ValueError, match="max_length of 24 tokens"):
        generate(session, "more", 5)
    # An error leaves the text as it was.
    assert len(session.tokens()) == 25


def test_exactly_fitting_prompt() -> None:
    model = tiny()
    session = model.session(max_length=len(PROMPT))
    out = generate(session, PROMPT, 5, ignore_eos=True)
    assert out.finish_reason == "cache" and len(out.tokens) == 1
    assert out.tokens == generate(model, PROMPT, 1, tree=None).tokens


def test_a_batch_session_continues_each_sequence() -> None:
    model = tiny()
    prompts = ["abc", "a longer prompt than that"]
    session = model.session(batch=2, max_length=128)
    first = generate(session, prompts, 5, ignore_eos=True)
    second = generate(session, None, 9, tree=8, draft="lookup", ignore_eos=True)
    for b, prompt in enumerate(prompts):
        whole = generate(model, prompt, 14, tree=None, ignore_eos=True).tokens
        assert first[b].tokens + second[b].tokens == whole
    with pytest.raises(ValueError, match="each of the session's 2 sequences, got 1"):
        generate(session, "one")


def test_one_thread_at_a_time() -> None:
    session = tiny().session(max_length=64)
    with stream(session, PROMPT, 20, ignore_eos=True) as pieces:
        next(pieces)
        failures: list[str] = []

        def intrude() -> None:
            try:
                generate(session, PROMPT, 2)
            except RuntimeError as error:
                failures.append(str(error))

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        assert failures and "session: needs to be free" in failures[0]
    assert generate(session, None, 2, ignore_eos=True).tokens


def test_a_stream_left_early_keeps_the_text_so_far() -> None:
    model = tiny()
    whole = generate(model, PROMPT, 30, tree=None, ignore_eos=True).tokens
    session = model.session(max_length=64)
    with stream(session, PROMPT, 30, ignore_eos=True, tree=4, draft="lookup") as pieces:
        for _ in range(3):
            next(pieces)
        with pytest.raises(RuntimeError, match="read to its end"):
            _ = pieces.result
    kept = session.tokens()[len(ids(PROMPT)) :]
    assert 3 <= len(kept) < 30 and kept == whole[: len(kept)]
    rest = generate(session, None, 30 - len(kept), ignore_eos=True)
    assert kept + rest.tokens == whole


class Interrupted:
    """A native session in which the user presses Ctrl-C when `method` is called the n-th time."""

    def __init__(self, native: Any, method: str, calls: int) -> None:
        self._native, self._method, self._calls = native, method, calls

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            self._calls -= 1
            if self._calls == 0:
                raise KeyboardInterrupt
        return getattr(self._native, name)


@pytest.mark.parametrize("calls", [1, 4])
@pytest.mark.parametrize(
    "method", ["begin_step", "set_tree", "verify", "accept", "compact", "emitted", "truncate"]
)
def test_an_interrupted_generation_leaves_the_session_usable(method: str, calls: int) -> None:
    """Wherever it was: the session holds a beginning of the text, and goes on from there."""
    model = tiny()
    whole = generate(model, PROMPT, 60, tree=None, ignore_eos=True).tokens
    truth = ids(PROMPT) + whole
    session = model.session(max_length=128, max_nodes=12)
    generate(session, PROMPT, 5, ignore_eos=True, tree=None)
    native = session.native
    session.native = Interrupted(native, method, calls)
    try:
        generate(session, None, 20, ignore_eos=True, draft=planted(truth))
    except KeyboardInterrupt:
        pass
    else:  # the sequence is cut at its place and at the end only
        assert method == "truncate" and calls > 2
    session.native = native
    kept = session.tokens()
    assert len(kept) >= len(ids(PROMPT)) + 5 and kept == truth[: len(kept)]
    left = 60 - (len(kept) - len(ids(PROMPT)))
    assert kept + generate(session, None, left, ignore_eos=True).tokens == truth


@pytest.mark.parametrize("options", [{"tree": None}, {"tree": 6, "draft": "lookup"}])
def test_stream_is_generate_in_pieces(options: dict[str, Any]) -> None:
    model = tiny()
    for stop in (None, "q", "e"):
        arguments = {"ignore_eos": True, "stop": stop} | options
        expected = generate(model, PROMPT, 50, **arguments)
        with stream(model, PROMPT, 50, **arguments) as pieces:
            assert "".join(pieces) == pieces.result.text == expected.text
            assert pieces.result.tokens == expected.tokens
            assert pieces.result.finish_reason == expected.finish_reason


def test_stream_takes_one_prompt_and_known_options() -> None:
    with pytest.raises(ValueError, match="a stream needs a single prompt"):
        stream(tiny(), ["a", "b"])
    with pytest.raises(TypeError, match="unknown option 'temprature'"):
        stream(tiny(), PROMPT, temprature=1.0)


def test_session_arguments() -> None:
    for batch in (0, 4097):
        with pytest.raises(ValueError, match=r"batch: needs an integer in \[1, 4096\]"):
            tiny().session(batch=batch)
    with pytest.raises(ValueError, match=r"max_length: needs an integer in \[1, 256\], got 257"):
        tiny().session(max_length=257)
    assert tiny().session().max_length == 256
    session = tiny().session(max_nodes=4, max_length=32)
    with pytest.raises(ValueError, match="at most the session's 4 nodes, got 8"):
        generate(session, PROMPT, tree=8)
    with pytest.raises(ValueError, match="a session without any text needs one, got None"):
        generate(session, None)


def test_every_native_method_refuses_a_second_thread() -> None:
    length = 4096  # a prefill long enough to be met at work
    model = tiny(max_position_embeddings=length)
    heads, tree = tiny_with_heads().heads, Tree([[0]]).native
    native = _C.Session(model.native, 1, length, 8, "float32")
    tokens = np.ones(length - 1, np.int32)
    worker = threading.Thread(target=native.prefill, args=(0, tokens))
    methods: dict[str, tuple[Any, ...]] = {
        "prefill": (0, tokens[:1]),
        "truncate": (0, 0),
        "begin": (0, tokens[:1]),
        "can_begin": (tokens[:1],),
        "free": (0,),
        "cache_stats": (),
        "set_active": ([0],),
        "set_end_tokens": (0, [1]),
        "set_sampling": (0,),
        "begin_step": (),
        "feed": (0, tokens[:1], True),
        "add_node": (0, 0, 1),
        "set_tree": (0, tokens[:1], -tokens[:1]),
        "draft_for": ([0],),
        "draft_heads": (heads, tree),
        "draft_lookup": (1, 2, 1, 1),
        "look_up": (0, 1, 2, 1),
        "verify": (),
        "accept": (),
        "compact": (),
        "text": (0,),
        "tree": (0,),
        "emitted": (0,),
        "accepted_path": (0,),
        "path_hidden": (0,),
        "prefill_hidden": (),
        "keep_logits": (0, True),
        "set_profiling": (False,),
        "kernel_seconds": (),
        "failure": (0,),
        "check_finite": (),
        "path_logits": (0,),
        "tree_logits": (0,),
        "prefill_logits": (),
        "head_candidates": (heads, 1),
    }
    bound = {name for name in dir(native) if not name.startswith("_")}
    sizes = {"batch", "max_length", "max_nodes"}
    assert bound - sizes == {*methods, "lengths", "roots"}

    def refused(call: Callable[..., object], args: tuple[Any, ...] = ()) -> bool:
        try:
            call(*args)
        except Exception as error:
            return "in use by another thread" in str(error)
        return False

    worker.start()
    while not refused(lambda: native.lengths):
        assert worker.is_alive(), "the prefill ended before it was seen at work"
    accepted = [name for name, args in methods.items() if not refused(getattr(native, name), args)]
    assert refused(lambda: native.roots), "the prefill ended too early"
    worker.join()
    assert accepted == [] and native.lengths == [length - 1]
