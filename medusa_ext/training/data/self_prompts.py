"""Prompts that the model writes itself: what a user would say after the chat template's header."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final

import numpy as np

from ...text.prompts import encode
from .answer import Int32Array, Job
from .backend import Backend
from .prompts import Prompt

# Two in three begin freely, the others with words that lead to different kinds of requests.
_OPENINGS: Final = (
    "How|What is|Can you|Write|Explain|I need|Why|Give me|Please|Create a|Describe|My|Is it|Help "
    "me|List|Who|Tell me|Translate|Summarize|Compare|Let's|Write a Python|def |Solve|If|When|Where|"
    "I am|I want|Suggest|Rewrite|In this|Generate|The following|Find|Calculate|Imagine|You are|Do "
    "you|Should I|Hi|Design|Convert|Given|Could you|A |Implement|Which|Draft|Edit"
).split("|")
_MAX_TOKENS: Final = 72
_MIN_WORDS: Final = 3
_MARK: Final = "\x00user text\x00"


def user_header(tokenizer: Any) -> str:
    """What the chat template puts before a user's text.

    Raises ValueError if the tokenizer has no chat template, or one that drops the text.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError("tokenizer: writing prompts needs a chat template, got none")
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": _MARK}], tokenize=False)
    header, mark, _ = str(rendered).partition(_MARK)
    if not mark:
        raise ValueError("chat template: needs to keep the user's text, got a rendering without it")
    return header


def self_prompts(
    backend: Backend, tokenizer: Any, end_ids: frozenset[int], count: int, seed: int
) -> Iterator[Prompt]:
    """Prompts from `count` attempts, in a fixed order; unfinished and trivial ones are left out."""
    header = user_header(tokenizer)
    random = Random(f"medusa self {seed}")
    starts = [random.choice(_OPENINGS) if random.random() < 0.35 else "" for _ in range(count)]
    jobs = [
        Job(i, encode_text(tokenizer, header + start), seed * 1_000_003 + i)
        for i, start in enumerate(starts)
    ]
    texts: dict[int, str] = {}
    for index, conversation in backend.answer(jobs, end_ids, _MAX_TOKENS, temperature=1.0):
        tokens = conversation.answer.tolist()
        if tokens and tokens[-1] in end_ids:
            texts[index] = starts[index] + tokenizer.decode(tokens[:-1], skip_special_tokens=True)
    for index in sorted(texts):
        text = texts[index].strip()
        if len(text.split()) >= _MIN_WORDS and "�" not in text:
            yield Prompt.ask(text, "self")


def encode_text(tokenizer: Any, text: str) -> Int32Array:
    """A rendered text's tokens, special tokens in it recognised, none added."""
    return np.array(tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)


def encode_prompt(tokenizer: Any, vocab_size: int, prompt: Prompt) -> Int32Array:
    """A prompt's tokens as `generate` makes them: through the chat template, where control tokens
    in a message are only text, or raw text with the usual start token.

    Raises ValueError if the template refuses the conversation, as some do a system message, or a
    token has no row in the model.
    """
    given: Any = prompt.text
    if prompt.messages and getattr(tokenizer, "chat_template", None) is None:
        given = "\n\n".join(content for _, content in prompt.messages) + "\n\n"
    elif prompt.messages:
        given = [{"role": role, "content": content} for role, content in prompt.messages]
    return np.array(encode(tokenizer, vocab_size, given, continues=False).tokens, dtype=np.int32)
