"""Batches: tokens per second of all sequences together, by their number, plain and with trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any, Final

from medusa_ext.api import generate, load
from medusa_ext.engine.model import Model

from .fastest import encode_chat, read_prompts
from .rows import Row, interleaved
from .setting import Setting

BATCHES: Final = (1, 2, 4, 8, 16)
BATCH_FORMATS: Final = (("float32", "F32"), ("int8", "Q8_0"))
_WAYS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"tree": None},
    "tree of 4": {"tree": 4},
    "auto": {"tree": "auto"},
}


def measure_batches(setting: Setting) -> Iterator[Row]:
    """A row per format and number of sequences; the sequences answer different prompts."""
    if not setting.wants("batches"):
        return
    sets = read_prompts(max(BATCHES)).values()
    prompts = [prompt for turn in zip(*sets, strict=False) for prompt in turn]
    for name, storage in BATCH_FORMATS:
        setting.begin(f"batches: {name}")
        model = load(setting.files(storage), device="cpu")
        encoded = [encode_chat(model.tokenizer, prompt) for prompt in prompts]
        for batch in BATCHES:
            yield _row(setting, name, model, list(islice(cycle(encoded), batch)))


def _row(setting: Setting, name: str, model: Model, prompts: Sequence[list[int]]) -> Row:
    per_step: dict[str, float] = {}
    sides: dict[str, Callable[[], float | None]] = {
        way: partial(_speed, model, prompts, setting.sizes.batch_new_tokens, way, per_step)
        for way in _WAYS
    }
    speeds = interleaved(sides, setting.sizes.repeats, lead_in=False)
    details = {f"{way}, tokens/s": speeds[way] for way in ("plain", "tree of 4")}
    details |= {f"{way}, tokens/step": per_step[way] for way in ("tree of 4", "auto")}
    details["auto over plain"] = speeds["auto"] / speeds["plain"]
    count = f"{len(prompts)} sequence{'s' if len(prompts) > 1 else ''}"
    what = f"{name}, {count}: tokens/s of all, tree='auto'"
    return Row("batches", what, speeds["auto"], "tokens/s", details=details)


def _speed(
    model: Model,
    prompts: Sequence[list[int]],
    count: int,
    way: str,
    per_step: dict[str, float],
) -> float:
    """Tokens per second after the prefills; notes the tokens per sequence and step."""
    results = generate(model, list(prompts), count, ignore_eos=True, **_WAYS[way])
    emitted = sum(len(result.tokens) - 1 for result in results)
    per_step[way] = emitted / sum(result.stats.steps for result in results)
    # Every result of a batch has the seconds of the whole.
    spent = results[0].stats.seconds
    return float(emitted / sum(time for phase, time in spent.items() if phase != "prefill"))
