"""Chat messages, in the forms in which clients send them, rendered by the model's template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .template_limits import check_template, within_limits

Message = Mapping[str, Any]

# Key of a conversation -> argument of `encode_chat`.
_KEYS: Final = {
    "messages": "messages",
    "tools": "tools",
    "chat_template": "template",
    "chat_template_kwargs": "variables",
}
_MARKS: Final = tuple(chr(code) for code in range(0xE000, 0xE100))


def chat_arguments(conversation: Mapping[str, Any]) -> dict[str, Any]:
    """What `encode_chat` takes, of a conversation under the keys that servers take.

    Raises ValueError naming the key that is missing, unknown or of another type.
    """
    unknown = [key for key in conversation if key not in _KEYS]
    if unknown:
        raise ValueError(f"prompt: needs a conversation's keys {tuple(_KEYS)}, got {unknown[0]!r}")
    given = {key: value for key, value in conversation.items() if value is not None}
    for key in ("messages", "tools"):
        listed = given.get(key, ())
        if not isinstance(listed, list | tuple) or not all(isinstance(i, Mapping) for i in listed):
            raise ValueError(f"prompt: {key}: needs a list of mappings, got {listed!r:.120}")
    for key, kind in (("chat_template", str), ("chat_template_kwargs", Mapping)):
        if key in given and not isinstance(given[key], kind):
            need = "the name of a template" if kind is str else "a mapping"
            raise ValueError(f"prompt: {key}: needs {need}, got {given[key]!r:.120}")
    if not given.get("messages"):
        raise ValueError("prompt: messages: needs at least one, got none")
    return {_KEYS[key]: value for key, value in given.items()}


def encode_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """The ids of a conversation in the model's chat template, the assistant's turn opened.

    A last message of the assistant's is the beginning of its answer, which is continued. Content
    is a string or a list of text parts; beside tool calls it may be missing. `tools` and
    `variables` are for the template to read, `template` is the name of one where a model has
    several.

    A control token's spelling inside a message or a tool is cut in two by a private-use character,
    which survives the template; the rendered text is then tokenised in pieces cut at these marks,
    so the spelling stays text: no message can end its turn or open another.

    Raises ValueError naming what is wrong with a message, or why the template refuses them.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("prompt: chat messages need a model with a chat template; this has none")
    if template is not None:
        _check_name(tokenizer.chat_template, template)
    plain = [_plain(message) for message in messages]
    everything = "".join(_strings([plain, tools, variables]))
    check_unicode(everything, "prompt")
    mark = next((mark for mark in _MARKS if mark not in everything), None)
    if mark is None:
        raise ValueError(
            "prompt: needs one private-use character left to mark pieces, got them all"
        )
    spellings = _control_spellings(tokenizer)
    several = isinstance(tokenizer.chat_template, Mapping)
    read = {
        **_cut(variables or {}, spellings, mark),
        "tools": _cut(tools, spellings, mark) or None,
        "chat_template": template if several else None,
    }
    text = _render(tokenizer, _cut(plain, spellings, mark), read)
    ids: list[int] = []
    for piece in text.split(mark):
        ids += tokenizer.encode(piece, add_special_tokens=False)
    return ids


def _plain(message: Message) -> dict[str, Any]:
    """A message whose content is a string, as every template takes it."""
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        content = ""
    elif isinstance(content, list | tuple):
        content = "\n".join(_part(part) for part in content)
    if not isinstance(message.get("role"), str) or not isinstance(content, str):
        raise ValueError(
            f"prompt: a chat message needs 'role' and 'content' strings, got {message!r:.120}"
        )
    return {**message, "content": content}


def _part(part: Any) -> str:
    """The text of one part of a content list."""
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str) or part.get("type", "text") != "text":
        raise ValueError(f"prompt: a chat message's content needs parts of text, got {part!r:.120}")
    return text


def _check_name(templates: Any, name: str) -> None:
    """A template's text is never taken from a prompt, only the name of one of the model's."""
    known = tuple(templates) if isinstance(templates, Mapping) else ("default",)
    if name not in known:
        raise ValueError(f"prompt: chat_template: needs one of {known}, got {name!r:.120}")


def _render(tokenizer: Any, messages: list[dict[str, Any]], read: Mapping[str, Any]) -> str:
    """The template's text, with the assistant's turn opened or, if it is begun, left open."""
    last = messages[-1]
    begun = last["role"] == "assistant" and not last.get("tool_calls")
    if begun and not last["content"].strip():
        messages, begun = messages[:-1], False

    def render() -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=not begun,
                continue_final_message=begun,
                **read,
            )
        )

    try:
        for source in _sources(tokenizer.chat_template):
            check_template(source)
        return within_limits(render)
    except Exception as error:  # jinja's own kinds, raised by the template
        raise ValueError(f"prompt: the model's chat template refused it: {error}") from error


def _sources(templates: Any) -> list[str]:
    """The one template, or those that have names."""
    every = templates.values() if isinstance(templates, Mapping) else [templates]
    return [source for source in every if isinstance(source, str)]


def _control_spellings(tokenizer: Any) -> list[str]:
    added = tokenizer.added_tokens_decoder.values()
    return sorted({token.content for token in added if len(token.content.strip()) > 1}, key=len)


def _strings(value: Any) -> Iterator[str]:
    """All strings in a message, in tool calls and their arguments too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _cut(value: Any, spellings: Sequence[str], mark: str) -> Any:
    """The value with every control token's spelling in its strings cut in two."""
    if isinstance(value, Mapping):
        return {
            _cut(key, spellings, mark): _cut(item, spellings, mark) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_cut(item, spellings, mark) for item in value]
    if not isinstance(value, str):
        return value
    for spelling in spellings:
        value = value.replace(spelling, spelling[0] + mark + spelling[1:])
    return value


def check_unicode(text: str, argument: str = "") -> None:
    """ValueError, naming the argument if there is one, for half a surrogate pair, which no
    tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        got = f"{text[error.start]!r} at {error.start}"
        what = f"{argument}: " if argument else ""
        raise ValueError(f"{what}needs valid Unicode, got {got}") from error
