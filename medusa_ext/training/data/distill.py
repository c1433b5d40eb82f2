"""Self-distillation: the model answers prompts; answers and hidden states become training data.

The run is a fixed plan of rounds, each of prompts drawn for it and of shards of their answers, so
that a run that was killed makes the missing shards and ends with the same data.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

from ...files import json_text, write_text
from .answer import Int32Array, Job
from .backend import Backend
from .prompts import Exclusion, Prompt, prompt_from_json, unique
from .self_prompts import encode_prompt, self_prompts
from .shards import Conversation, Manifest, ShardInfo, write_shard
from .synthetic import template_prompts

_log = logging.getLogger("medusa_ext")
_SHARD_CONVERSATIONS: Final = 64
# Rounds double from the first to the largest, so that small runs need not prepare large ones.
_FIRST_ROUND: Final = 128
_LARGEST_ROUND: Final = 2048
_MIN_ANSWER: Final = 4


@dataclass(frozen=True)
class DistillSettings:
    """What decides the data; a directory is resumed only with the same settings.

    self_share: prompts that the model writes itself, of all synthesised ones.
    temperature_share: prompts answered at `temperature`; the others greedily.
    """

    seed: int = 0
    max_new_tokens: int = 224
    max_prompt_tokens: int = 240
    self_share: float = 0.25
    temperature: float = 0.7
    temperature_share: float = 0.25


@dataclass
class Distiller:
    """One run into one directory. `file_prompts`: the user's prompts; empty: synthesised ones."""

    folder: Path
    manifest: Manifest
    settings: DistillSettings
    backend: Backend
    tokenizer: Any
    exclusion: Exclusion
    file_prompts: list[Prompt]
    _in_flight: int = 0
    _report: Callable[[int], None] = field(default=lambda tokens: None)

    def _count(self, tokens: int) -> None:
        self._in_flight += tokens
        self._report(self.manifest.tokens + self._in_flight)

    def run(self, tokens: int, progress: Callable[[int], None] | None = None) -> Manifest:
        """Makes shards until the directory holds at least `tokens` answer tokens, or the user's
        prompts are used up. `progress` is told how many there are, those in flight included.

        Raises:
            ValueError: no prompt is left after removing held-out, repeated and too long ones.
            OSError: the disk is full, say; what is finished stays usable.
        """
        if progress is not None:
            self._report = progress
        started, before = time.perf_counter(), self.manifest.seconds
        seen: set[str] = set()
        for number in range(1 << 20):
            if self.manifest.tokens >= tokens:
                break
            prompts = self._round_prompts(number, seen)
            if not prompts:
                if number == 0:
                    raise ValueError("prompts: need some that are not held out, got none")
                _log.warning("all prompts are answered: %d tokens", self.manifest.tokens)
                break
            for info, shard in self._round_shards(number, prompts, tokens):
                if shard:
                    write_shard(self.folder / info.name, shard)
                self.manifest.shards.append(info)
                self.manifest.seconds = before + time.perf_counter() - started
                self.manifest.save(self.folder)
                self._in_flight = max(0, self._in_flight - info.tokens)
        self.manifest.finished = self.manifest.tokens >= tokens or bool(self.file_prompts)
        self.manifest.save(self.folder)
        return self.manifest

    def _round_prompts(self, number: int, seen: set[str]) -> list[Prompt]:
        """The round's prompts: read back where the round had begun before, else made and kept."""
        path = self.folder / f"prompts-{number:04d}.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            prompts = [prompt_from_json(json.loads(line)) for line in lines]
            seen.update(prompt.key for prompt in prompts)
            return prompts
        prompts = list(unique(self._fresh_prompts(number), seen))
        Random(f"medusa order {self.settings.seed} {number}").shuffle(prompts)
        text = "".join(json_text(prompt.to_json()) + "\n" for prompt in prompts)
        write_text(path, text)
        return prompts

    def _fresh_prompts(self, number: int) -> Iterator[Prompt]:
        found: Iterator[Prompt]
        if self.file_prompts:
            start = sum(_round_size(i) for i in range(number))
            found = iter(self.file_prompts[start : start + _round_size(number)])
        else:
            found = self._synthesised(number)
        dropped = 0
        refused: list[str] = []
        for prompt in found:
            try:
                size = len(self._encode(prompt))
            except ValueError as error:
                refused.append(f"{prompt.key!r:.60}: {error}")
                continue
            if self.exclusion.matches(prompt) or size > self.settings.max_prompt_tokens:
                dropped += 1
            else:
                yield prompt
        if dropped:
            _log.info("round %d: %d prompts dropped as held out or too long", number, dropped)
        if refused:
            _log.warning("%d prompts skipped, the first: %s", len(refused), refused[0])

    def _encode(self, prompt: Prompt) -> Int32Array:
        return encode_prompt(self.tokenizer, self.manifest.vocab_size, prompt)

    def _synthesised(self, number: int) -> Iterator[Prompt]:
        """Templates and, if the model has a chat template, prompts of its own."""
        settings = self.settings
        share = settings.self_share if getattr(self.tokenizer, "chat_template", None) else 0.0
        own = round(_round_size(number) * share)
        seed = settings.seed * 100_003 + number
        if own:
            ends = frozenset(self.manifest.eos_ids)
            yield from self_prompts(self.backend, self.tokenizer, ends, own, seed)
        yield from islice(template_prompts(seed), _round_size(number) - own)

    def _round_shards(
        self, number: int, prompts: list[Prompt], tokens: int
    ) -> Iterator[tuple[ShardInfo, list[Conversation]]]:
        """The round's missing shards, sampled answers before greedy ones."""
        sampled = round(len(prompts) * self.settings.temperature_share)
        if self.settings.temperature <= 0:
            sampled = 0
        done = {(s.round, s.temperature, s.index) for s in self.manifest.shards}
        for temperature, part in (
            (self.settings.temperature, prompts[:sampled]),
            (0.0, prompts[sampled:]),
        ):
            blocks = range(-(-len(part) // _SHARD_CONVERSATIONS))
            missing = [i for i in blocks if (number, temperature, i) not in done]
            for index, shard in self._answer_blocks(part, missing, temperature, number):
                count = sum(len(conversation.answer) for conversation in shard)
                yield ShardInfo(number, temperature, index, len(shard), count), shard
                if self.manifest.tokens >= tokens:
                    return

    def _answer_blocks(
        self, prompts: list[Prompt], blocks: list[int], temperature: float, number: int
    ) -> Iterator[tuple[int, list[Conversation]]]:
        """Answers blocks of prompts in one stream and yields each block when it is complete."""
        size, settings = _SHARD_CONVERSATIONS, self.settings
        sizes = {b: len(prompts[b * size : (b + 1) * size]) for b in blocks}
        answers: dict[int, dict[int, Conversation]] = {b: {} for b in blocks}

        def jobs() -> Iterator[Job]:
            for block in blocks:
                for i in range(block * size, block * size + sizes[block]):
                    ids = self._encode(prompts[i])
                    yield Job(i, ids, (settings.seed * 4093 + number) * 1_000_003 + i)

        ends = frozenset(self.manifest.eos_ids)
        waiting = list(reversed(blocks))
        for index, conversation in self.backend.answer(
            jobs(), ends, settings.max_new_tokens, temperature, self._count
        ):
            answers[index // size][index] = conversation
            # In the plan's order, so that a run that is cut short has the same shards whenever
            # it was stopped before.
            while waiting and len(answers[waiting[-1]]) == sizes[waiting[-1]]:
                found = answers.pop(waiting[-1])
                kept = [found[i] for i in sorted(found) if len(found[i].answer) >= _MIN_ANSWER]
                yield waiting.pop(), kept


def _round_size(number: int) -> int:
    """Prompts of round `number`."""
    return int(min(_LARGEST_ROUND, _FIRST_ROUND << min(number, 16)))


def open_run(folder: Path, fresh: Manifest, settings: DistillSettings) -> Manifest:
    """The manifest of `folder`, checked against what this run would make; `fresh` if it is new.

    Raises ValueError if the directory holds data of another model or other settings.
    """
    if not (folder / "manifest.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        fresh.save(folder)
        return fresh
    found = Manifest.load(folder)
    for what, have, need in (
        ("model fingerprint", found.fingerprint, fresh.fingerprint),
        ("settings", found.settings, fresh.settings),
    ):
        if have != need:
            raise ValueError(f"{folder}: resuming needs the same {what} {need}, got {have}")
    return replace(found, finished=False)
