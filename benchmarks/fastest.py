"""The fastest configurations against each other: ours with drafts, llama.cpp's plain and lookup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from medusa_ext.api import generate, load
from medusa_ext.engine.model import Model

from .llama_cpp_server import LlamaServer
from .rows import Row, interleaved
from .setting import Setting

SETS: Final = {"chat": ("everyday", "maths", "summary"), "code": ("code",)}
_BAR_LOOKUP, _BAR_HEADS = 1.7, 2.0


def read_prompts(per_set: int) -> dict[str, list[str]]:
    """Prompts of each set from the held-out ones, spread over its categories."""
    path = Path(__file__).parent / "prompts" / "held_out.jsonl"
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    chosen: dict[str, list[str]] = {}
    for name, categories in SETS.items():
        pools = [[e["prompt"] for e in entries if e["category"] == name] for name in categories]
        turns = [prompt for turn in zip(*pools, strict=False) for prompt in turn]
        chosen[name] = turns[:per_set]
    return chosen


def measure_fastest(setting: Setting) -> Iterator[Row]:
    """Tokens per second of both sides' best configuration: the mean of the sets' own means."""
    if not setting.wants("fastest"):
        return
    setting.begin("fastest: loading")
    models = {"lookup": load(setting.files("Q4_1"), heads=None, device="cpu")}
    with_heads = load(setting.files("Q4_1"), device="cpu")
    if with_heads.heads is not None:
        models["heads and lookup"] = with_heads
    tokenizer = with_heads.tokenizer
    sets = {
        name: [encode_chat(tokenizer, prompt) for prompt in prompts]
        for name, prompts in read_prompts(setting.sizes.prompts_per_set).items()
    }
    with ExitStack() as stack:
        servers = {
            f"llama.cpp Q4_0, {f'lookup of {draft}' if draft else 'plain'}": stack.enter_context(
                LlamaServer(setting.files("Q4_0"), setting.threads, draft)
            )
            for draft in setting.sizes.server_drafts
        }
        speeds = {
            name: _speeds(setting, name, prompts, models, servers) for name, prompts in sets.items()
        }
    yield from _rows(speeds, models, servers)


def _speeds(
    setting: Setting,
    set_name: str,
    prompts: list[list[int]],
    models: dict[str, Model],
    servers: dict[str, LlamaServer],
) -> dict[str, float]:
    """Tokens per second over a set, by configuration."""
    count = setting.sizes.prompt_new_tokens
    sides: dict[str, Callable[[], float | None]] = {
        "plain": lambda: _ours(models["lookup"], prompts, count, {"tree": None})
    }
    for name, model in models.items():
        sides[name] = partial(_ours, model, prompts, count, {"tree": "auto"})
    for name, server in servers.items():
        sides[name] = partial(_theirs, server, prompts, count)
    setting.begin(f"fastest: {set_name} prompts")
    return interleaved(sides, setting.sizes.repeats, lead_in=False)


def _rows(
    speeds: dict[str, dict[str, float]], models: dict[str, Model], servers: dict[str, LlamaServer]
) -> Iterator[Row]:
    def mean(name: str) -> float:
        return sum(figures[name] for figures in speeds.values()) / len(speeds)

    best = max(servers, key=mean)
    for name in models:
        details = {"ours, mean tokens/s": mean(name), f"{best}, mean tokens/s": mean(best)}
        for set_name, figures in speeds.items():
            details |= {f"{set_name}: {side}": speed for side, speed in figures.items()}
        yield Row(
            "fastest",
            f"fastest configuration with {name} against {best}",
            mean(name) / mean(best),
            "x",
            _BAR_LOOKUP if name == "lookup" else _BAR_HEADS,
            details=details,
        )


def _ours(model: Model, prompts: Sequence[list[int]], count: int, how: dict[str, Any]) -> float:
    """Tokens per second after the prefills."""
    tokens, seconds = 0, 0.0
    for prompt in prompts:
        result = generate(model, prompt, count, ignore_eos=True, **how)
        tokens += len(result.tokens) - 1
        seconds += sum(t for phase, t in result.stats.seconds.items() if phase != "prefill")
    return tokens / seconds


def _theirs(server: LlamaServer, prompts: Sequence[list[int]], count: int) -> float:
    tokens, seconds = 0, 0.0
    for prompt in prompts:
        new, time = server.generate(prompt, count)
        tokens += new
        seconds += time
    return tokens / seconds


def encode_chat(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt as the first message of a chat."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return list(map(int, tokenizer(text, add_special_tokens=False)["input_ids"]))
