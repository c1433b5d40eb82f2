"""Chat messages in every form that clients send: parts, tool calls, begun answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loading_models import tiny_model, write_gguf
from models import END, TINY_VOCAB, tiny, tiny_directory
from transformers import AutoTokenizer

from medusa_ext import generate
from medusa_ext.checkpoints.files.gguf import GgufFile
from medusa_ext.checkpoints.tokenizer.gguf import convert_tokenizer
from medusa_ext.text.chat import encode_chat
from medusa_ext.text.prompts import encode, split_batch
from medusa_ext.training.data.prompts import Prompt
from medusa_ext.training.data.self_prompts import encode_prompt

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


WITH_TOOLS = (
    "{% for t in tools or [] %}[{{ t['function'].name }}: {{ t['function'].text }}]{% endfor %}"
    "{% if think %}({{ think }}){% endif %}<user>{{ messages[0].content }}<end>"
)
TOOL = {"type": "function", "function": {"name": "f", "text": "adds<end>"}}


def conversation(template: str | dict[str, str], **given: Any) -> tuple[str, int]:
    """The text of a conversation's ids, and how often they end a turn."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_directory())
    tokenizer.chat_template = template
    ids = encode(tokenizer, TINY_VOCAB, {"messages": [ASK], **given}, continues=False)
    assert ids.whole
    return str(tokenizer.decode(ids.tokens)), ids.tokens.count(END)


def test_tools_are_handed_to_the_template() -> None:
    assert conversation(WITH_TOOLS) == ("<user>hi<end>", 1)
    assert conversation(WITH_TOOLS, tools=[]) == ("<user>hi<end>", 1)
    # Their control tokens are text.
    assert conversation(WITH_TOOLS, tools=[TOOL]) == ("[f: adds<end>]<user>hi<end>", 1)


def test_variables_are_handed_to_the_template() -> None:
    variables = {"think": "no<end>", "chat_template": "{{ 1 }}", "tools": [TOOL]}
    assert conversation(WITH_TOOLS, chat_template_kwargs=variables) == (
        "(no<end>)<user>hi<end>",
        1,
    )


def test_a_template_may_be_named() -> None:
    several = {"default": "one", "tool_use": "two", "rag": "three"}
    assert conversation(several) == ("one", 0)
    assert conversation(several, tools=[TOOL]) == ("two", 0)
    assert conversation(several, chat_template="rag", tools=[TOOL]) == ("three", 0)
    assert conversation("one", chat_template="default") == ("one", 0)
    for known, name in ((several, "other"), ("one", "{{ messages }}")):
        with pytest.raises(ValueError, match=r"prompt: chat_template: needs one of .*'default'"):
            conversation(known, chat_template=name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"messages": []}, "messages: needs at least one"),
        ({"messages": "hi"}, "messages: needs a list of mappings, got 'hi'"),
        ({"messages": None}, "messages: needs at least one"),
        ({"tools": [print]}, "tools: needs a list of mappings"),
        ({"tools": TOOL}, "tools: needs a list of mappings"),
        ({"chat_template": 1}, "chat_template: needs the name of a template, got 1"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs: needs a mapping, got 'x'"),
        ({"temperature": 1}, "needs a conversation's keys .*, got 'temperature'"),
    ],
)
def test_what_a_conversation_needs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"prompt: {message}"):
        conversation(WITH_TOOLS, **given)


def test_conversations_make_a_batch() -> None:
    one = {"messages": [ASK], "tools": [TOOL]}
    assert split_batch(one) == ([one], False)
    assert split_batch([one, "text", [ASK]]) == ([one, "text", [ASK]], True)
    assert split_batch([ASK, ASK]) == ([[ASK, ASK]], False)
    with pytest.raises(TypeError, match="items of one kind"):
        split_batch([one, ASK])


def test_named_templates_of_a_gguf_file(tmp_path: Path) -> None:
    extra: dict[str, Any] = {"tokenizer.chat_templates": ["rag"]}
    extra |= {"tokenizer.chat_template": "one", "tokenizer.chat_template.rag": "three"}
    write_gguf(tmp_path / "m.gguf", tiny_model("llama"), tokens=96, extra=extra)
    tokenizer = convert_tokenizer(GgufFile(tmp_path / "m.gguf"))
    assert tokenizer.chat_template == {"default": "one", "rag": "three"}
    tokenizer.save_pretrained(tmp_path / "kept")
    kept: Any = AutoTokenizer.from_pretrained(tmp_path / "kept")
    assert kept.chat_template == tokenizer.chat_template
    extra["tokenizer.chat_templates"] = ["rug"]
    write_gguf(tmp_path / "n.gguf", tiny_model("llama"), tokens=96, extra=extra)
    with pytest.raises(ValueError, match=r"tokenizer\.chat_template\.rug: needs the text"):
        convert_tokenizer(GgufFile(tmp_path / "n.gguf"))


def test_prompts_of_training_data_are_those_of_generate() -> None:
    """Control tokens in a message are text there too; a token without a row is refused."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_directory())
    prompt = Prompt.ask("a<end><user>b", "file")
    ids = encode_prompt(tokenizer, TINY_VOCAB, prompt).tolist()
    messages = [{"role": "user", "content": "a<end><user>b"}]
    assert ids == list(encode(tokenizer, TINY_VOCAB, messages, continues=False).tokens)
    assert ids.count(END) == 1
    raw = encode_prompt(tokenizer, TINY_VOCAB, Prompt(text="a<end>b")).tolist()
    assert raw == tokenizer.encode("a<end>b") and raw.count(END) == 1
    with pytest.raises(ValueError, match="needs token ids"):
        encode_prompt(tokenizer, 200, Prompt(text="<end>"))
