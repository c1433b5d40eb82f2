"""Requests that come and go: the engine's throughput, and what a long prompt does to the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from random import Random
from statistics import median
from time import perf_counter
from typing import Final

from medusa_ext import Engine, Model, generate, load

from .fastest import encode_chat, read_prompts
from .rows import Row, interleaved, seconds_of
from .setting import Setting

_ARRIVALS_SECONDS: Final = 0.5
_READERS: Final = 4
_UNDISTURBED_STEPS: Final = 24


def measure_requests(setting: Setting) -> Iterator[Row]:
    """The default model in int8, drafts and trees as they come without any option."""
    if not setting.wants("requests"):
        return
    setting.begin("requests")
    model = load(setting.files("Q8_0"), device="cpu")
    count = setting.sizes.requests
    sets = read_prompts(count).values()
    chats = [
        encode_chat(model.tokenizer, prompt) for turn in zip(*sets, strict=False) for prompt in turn
    ]
    prompts = list(islice(cycle(chats), count))
    yield _throughput(setting, model, prompts)
    yield _long_prompt(setting, model, prompts[:_READERS])


def _throughput(setting: Setting, model: Model, prompts: Sequence[list[int]]) -> Row:
    count, slots = setting.sizes.prompt_new_tokens, setting.sizes.slots
    longest = max(map(len, prompts)) + count
    engine = Engine(model, slots, max_length=longest)
    speeds = interleaved(
        {
            "as they come": partial(_arriving, engine, prompts, count),
            "batches": partial(_batches, model, prompts, count, slots),
        },
        setting.sizes.repeats,
        lead_in=False,
    )
    return Row(
        "requests",
        f"int8, {len(prompts)} requests of {count} tokens within {_ARRIVALS_SECONDS} s, {slots} "
        f"slots, against batches of {slots}",
        speeds["as they come"] / speeds["batches"],
        "x",
        0.9,
        details={f"{name}, tokens/s": speed for name, speed in speeds.items()},
    )


def _arriving(engine: Engine, prompts: Sequence[list[int]], count: int) -> float:
    """Tokens per second from the first arrival to the last end."""
    rng = Random(0)
    times = sorted(rng.uniform(0.0, _ARRIVALS_SECONDS) for _ in prompts)
    start = perf_counter() - times[0]
    arrived = 0
    while arrived < len(prompts) or not engine.is_idle:
        while arrived < len(prompts) and perf_counter() - start >= times[arrived]:
            engine.add(prompts[arrived], count, ignore_eos=True)
            arrived += 1
        engine.step()
    return len(prompts) * count / (perf_counter() - start - times[0])


def _batches(model: Model, prompts: Sequence[list[int]], count: int, slots: int) -> float:
    start = perf_counter()
    for first in range(0, len(prompts), slots):
        generate(model, list(prompts[first : first + slots]), count, ignore_eos=True)
    return len(prompts) * count / (perf_counter() - start)


def _long_prompt(setting: Setting, model: Model, prompts: Sequence[list[int]]) -> Row:
    size = setting.sizes.long_prompt
    long = setting.tokens(size, model.config.vocab_size).tolist()
    length = min(model.config.max_position_embeddings, 2048 + 2 * size)
    ratios, alone, beside = [], [], []
    for _ in range(setting.sizes.repeats):
        engine = Engine(model, _READERS + 1, max_length=length)
        for prompt in prompts:
            engine.add(prompt, length - max(map(len, prompts)), ignore_eos=True)
        gaps = [seconds_of(engine.step) for _ in range(2 * _UNDISTURBED_STEPS)][_UNDISTURBED_STEPS:]
        entering = engine.add(long, 1)
        entered = []
        while not entering.has_started:
            entered.append(seconds_of(engine.step))
        alone.append(median(gaps))
        beside.append(median(entered))
        ratios.append(beside[-1] / alone[-1])
    return Row(
        "requests",
        f"int8, {_READERS} texts grow while a prompt of {size} tokens enters: time between "
        "pieces against that without it",
        median(ratios),
        "x",
        2.0,
        at_most=True,
        details={
            "without, ms": 1e3 * median(alone),
            "while it enters, ms": 1e3 * median(beside),
            "steps to enter": float(len(entered)),
        },
    )
