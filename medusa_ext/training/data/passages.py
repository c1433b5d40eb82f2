"""Prompts about text at hand: the standard library's documentation and source, package notes."""

from __future__ import annotations

import ast
import os
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

_DPKG_STATUS: Final = Path("/var/lib/dpkg/status")
_MIN_WORDS, _MAX_WORDS = 35, 130
_MAX_CODE_LINES: Final = 22
_MAX_CODE_CHARACTERS: Final = 900

_TEXT_SHAPES: Final = (
    "Summarize the following text in two sentences.",
    "Summarize the following text in one sentence.",
    "Give me the main points of this text as a list.",
    "Explain this text in simple words.",
    "Rewrite the following passage in simpler language.",
    "What is this text about?",
    "Write a title for this text and a short summary.",
    "Make this text half as long.",
    "List the key terms of the following passage and explain each.",
    "Ask three questions that this text answers, and answer them.",
    "Turn this into bullet points.",
    "Who would want to read this, and why?",
    "Paraphrase the following paragraph.",
    "Write a tweet that sums this up.",
    "Summarize this for a child.",
    "Extract the most important facts from this text.",
    "Make this sound more friendly.",
    "Rewrite this as a short email to a colleague.",
    "TL;DR please",
)
_STUB_SHAPES: Final = (
    "{code}",
    "{code}",
    "Complete this function:\n\n{code}",
    "Complete the following Python code.\n\n```python\n{code}\n```",
    "Implement this function in Python:\n\n{code}",
    "Write the body of this function:\n\n{code}",
    "Fill in the function so that it does what its docstring says.\n\n{code}",
)
_SOURCE_SHAPES: Final = (
    "Explain what this code does:\n\n{code}",
    "Explain this function step by step.\n\n```python\n{code}\n```",
    "Write a docstring for this function:\n\n{code}",
    "Write unit tests for this function:\n\n{code}",
    "Add comments to this code:\n\n{code}",
    "How could this function be improved?\n\n{code}",
    "Is there a bug in this code?\n\n{code}",
    "Add type hints to this function:\n\n{code}",
    "Translate this Python function to JavaScript:\n\n{code}",
    "What does this function return, and when does it fail?\n\n{code}",
    "Refactor this code so that it is easier to read:\n\n{code}",
)


@dataclass(frozen=True)
class Passages:
    """Paragraphs of prose, function heads with their docstrings, and short whole functions."""

    texts: tuple[str, ...]
    stubs: tuple[str, ...]
    functions: tuple[str, ...]


@cache
def passages() -> Passages:
    """Everything usable in the standard library and, on Debian, in the package descriptions."""
    texts: list[str] = []
    stubs: list[str] = []
    functions: list[str] = []
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        if any(part in ("test", "tests", "site-packages", "idlelib") for part in path.parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source)
            lines = source.splitlines()
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                texts.extend(_paragraphs(ast.get_docstring(node) or ""))
            if isinstance(node, ast.FunctionDef):
                _collect_function(node, lines, stubs, functions)
    texts.extend(_package_descriptions())
    return Passages(tuple(dict.fromkeys(texts)), tuple(dict.fromkeys(stubs)), tuple(functions))


def _collect_function(
    node: ast.FunctionDef, source_lines: list[str], stubs: list[str], functions: list[str]
) -> None:
    if node.name.startswith("__"):
        return
    lines = source_lines[node.lineno - 1 : node.end_lineno]
    code = textwrap.dedent("\n".join(lines))
    if 4 <= len(lines) <= _MAX_CODE_LINES and len(code) <= _MAX_CODE_CHARACTERS:
        functions.append(code)
    document = ast.get_docstring(node)
    if document and 30 <= len(document) <= 500 and "self" not in lines[0]:
        head = f"def {node.name}({ast.unparse(node.args)}):"
        body = textwrap.indent(f'"""{document}\n"""', "    ")
        stubs.append(f"{head}\n{body}\n")


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        words = block.split()
        prose = block[:1].isalpha() and ">>>" not in block and "::" not in block
        if prose and _MIN_WORDS <= len(words) <= _MAX_WORDS:
            yield " ".join(words)


def _package_descriptions() -> Iterator[str]:
    """The long descriptions of the installed Debian packages; nothing on other systems."""
    try:
        status = _DPKG_STATUS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for match in re.finditer(r"^Description: .*\n((?: .*\n)+)", status, re.MULTILINE):
        lines = [line.strip() for line in match[1].splitlines()]
        yield from _paragraphs("\n".join("" if line == "." else line for line in lines))


def text_question(random: Random) -> str:
    """A question about a paragraph, before or after it."""
    shape, text = random.choice(_TEXT_SHAPES), random.choice(passages().texts)
    return f"{text}\n\n{shape}" if random.random() < 0.2 else f"{shape}\n\n{text}"


def source_question(random: Random) -> str:
    """A function to complete (its head and docstring given) or to work on."""
    if random.random() < 0.55:
        return random.choice(_STUB_SHAPES).format(code=random.choice(passages().stubs))
    return random.choice(_SOURCE_SHAPES).format(code=random.choice(passages().functions))
