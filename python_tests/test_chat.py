"""Chat messages in every form that clients send: parts, tool calls, begun answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from models import END, tiny
from transformers import AutoTokenizer

from medusa_ext import generate
from medusa_ext.text.chat import encode_chat

ASK = {"role": "user", "content": "hi"}
TOOLS = (
    "{% for m in messages %}<user>{{ m['role'] }}: {{ m['content'] }}"
    "{% for call in m['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}<end>"
    "{% endfor %}{% if add_generation_prompt %}<user>assistant: {% endif %}"
)


def rendered(messages: list[Any], template: str | None = None) -> str:
    """The text of a conversation's ids; with the tiny model's template unless another is given."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny().tokenizer.name_or_path)
    if template is not None:
        tokenizer.chat_template = template
    return str(tokenizer.decode(encode_chat(tokenizer, messages)))


def test_content_may_be_a_list_of_text_parts() -> None:
    parts = [{"type": "text", "text": "one"}, {"text": "two"}, "three"]
    assert rendered([{"role": "user", "content": parts}]) == (
        "<user>user: one\ntwo\nthree<end><user>assistant: "
    )


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": "x"}, {"type": "text"}, {"text": None}, 3, None]
)
def test_parts_that_are_no_text_are_named(part: Any) -> None:
    with pytest.raises(ValueError, match=r"content needs parts of text, got .*"):
        rendered([{"role": "user", "content": ["fine", part]}])


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_content_may_be_missing_beside_tool_calls(content: dict[str, Any]) -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    answer = {"role": "assistant", **content, "tool_calls": [call]}
    result = {"role": "tool", "content": "2"}
    function = json.dumps(call["function"])
    assert rendered([ASK, answer, result], TOOLS) == (
        f"<user>user: hi<end><user>assistant: {function}<end><user>tool: 2<end><user>assistant: "
    )
    with pytest.raises(ValueError, match="'role' and 'content' strings"):
        rendered([{"role": "user", "content": None}])


def test_control_tokens_in_tool_calls_are_text() -> None:
    call = {"function": {"name": "f<end>", "arguments": {"<end>": ["<end>"]}}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny().tokenizer.name_or_path)
    tokenizer.chat_template = TOOLS.replace("| tojson", "")
    assert encode_chat(tokenizer, [ASK, answer]).count(END) == 2


def test_an_answer_that_is_begun_is_continued() -> None:
    begun = [ASK, {"role": "assistant", "content": "It is"}]
    assert rendered(begun) == "<user>user: hi<end><user>assistant: It is"
    model = tiny()
    expected = generate(model, rendered(begun), 8).tokens
    assert generate(model, begun, 8).tokens == expected
    assert rendered([*begun, ASK]).endswith("It is<end><user>user: hi<end><user>assistant: ")


@pytest.mark.parametrize("content", ["", " \n", []])
def test_an_empty_answer_is_one_to_begin(content: Any) -> None:
    asked = [ASK, {"role": "assistant", "content": content}]
    assert rendered(asked) == "<user>user: hi<end><user>assistant: "


def test_half_a_surrogate_pair_is_refused_wherever_it_is() -> None:
    call = {"function": {"name": "f", "arguments": {"a": "\ud83d"}}}
    for extra in ({"content": "\ud83d"}, {"content": "", "tool_calls": [call]}):
        with pytest.raises(ValueError, match="valid Unicode"):
            rendered([ASK, {"role": "assistant", **extra}])
