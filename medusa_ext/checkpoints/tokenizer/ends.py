"""Which tokens end a model's turn: files say it in several places, and each may leave some out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..source import ModelSource

# How published models spell the end of a turn, a message or a text: llama.cpp's list for any GGUF
# file, but for the ends of parts of code, which end no turn; and OpenChat's.
SPELLINGS: Final = (
    "</s>",
    "<eos>",
    "<|im_end|>",
    "<|ifm|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|tool_response>",
    "<turn|>",
    "[e~[",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)
# Tokens of the one set beside which a spelling of the other ends no turn but a part of one.
_OVERRULED: Final = (
    ({"<|return|>", "<|call|>"}, "<|end|>"),
    ({"<|return|>", "<|calls|>"}, "<|end|>"),
    ({"<|flush|>", "<|call|>"}, "<|end|>"),
    ({"<|flush|>", "<|calls|>"}, "<|end|>"),
    ({"<|tool_response>"}, "</s>"),
)


def end_ids(source: ModelSource, tokenizer: Any) -> frozenset[int]:
    """The union of what the config, the generation config and the tokenizer call an end, and of
    the control tokens spelled like one: in a GGUF file any, else those of the chat template."""
    found = set(source.config.eos_ids)
    if tokenizer.eos_token_id is not None:
        found.add(int(tokenizer.eos_token_id))
    template = tokenizer.chat_template
    templates = template.values() if isinstance(template, dict) else (template or "",)
    spelled = {
        spelling: token
        for token, spelling in _control_tokens(tokenizer)
        if spelling in SPELLINGS
        and (source.gguf is not None or any(spelling in text for text in templates))
    }
    found.update(spelled.values())
    for others, spelling in _OVERRULED:
        if others <= spelled.keys() and spelling in spelled:
            found.discard(spelled[spelling])
    return frozenset(token for token in found if token < source.config.vocab_size)


def _control_tokens(tokenizer: Any) -> Iterable[tuple[int, str]]:
    """(id, spelling) of the tokens that no text contains."""
    added = tokenizer.added_tokens_decoder
    return ((id_, token.content) for id_, token in added.items() if token.special)
