"""How the byte-pair tokenizers of GGUF files cut text into words before merging.

A file names its way in `tokenizer.ggml.pre`. Names and expressions are llama.cpp's
(src/llama-vocab.cpp and src/unicode.cpp, build 11549), written for the `tokenizers` library so that
they cut as llama.cpp does: it knows no case of letters beyond ASCII, its \\d are ASCII digits, and
some of its types are functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class PreType:
    """A way of cutting text: each expression cuts the pieces that the ones before it left into its
    matches and what is between them.

    ignore_merges: a piece that is a token as a whole is that token, whatever merges make of it.
    adds_start: whether the start token comes first where the file does not say; or, with
    `always_starts`, whatever it says, as converters got it wrong.
    byte_level: tokens are spelled in GPT-2's alphabet of bytes; otherwise in plain characters with
    U+2581 for spaces, and bytes without a token as <0xFF>.
    """

    expressions: tuple[str, ...]
    ignore_merges: bool = False
    adds_start: bool = False
    always_starts: bool = False
    byte_level: bool = True


_START: Final = r"[^\r\n\p{L}\p{N}]?"
_ENDING: Final = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SIGNS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LINES: Final = r"\s*[\r\n]+"
_SPACES: Final = r"\s+(?!\S)|\s+"
_CJK: Final = r"[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+"


def _words(
    letters: str = r"\p{L}+",
    numbers: str = r"\p{N}",
    signs: str = _SIGNS,
    lines: str = _LINES,
    spaces: str = _SPACES,
) -> str:
    """English endings, words with the sign or space before them, numbers, signs, white space."""
    return f"{_ENDING}|{_START}{letters}|{numbers}|{signs}|{lines}|{spaces}"


def _cased(letters: str, ending: str, numbers: str) -> str:
    """Words that turn from upper to lower case at most once, with an English ending."""
    upper, lower = (rf"(?:(?={letters})[^{other}])" for other in ("a-z", "A-Z"))
    words = f"{_START}{upper}*{lower}+{ending}|{_START}{upper}+{lower}*{ending}"
    return rf"{words}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}|{_SPACES}"


def _uncased(numbers: str) -> str:
    """Words with marks, where llama.cpp takes any letter for the upper and lower case meant."""
    words = rf"{_START}[\p{{L}}\p{{M}}]+{_ENDING}?"
    return rf"{words}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}|{_SPACES}"


def _deepseek3(signs: str) -> str:
    punctuated = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    return rf"{punctuated}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+|{signs}|{_SPACES}"


_DIGIT: Final = r"\p{N}"
_THREE_DIGITS: Final = r"\p{N}{1,3}"
_DEEPSEEK_CJK: Final = r"[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF&&\S]+"
_GPT2_WORDS: Final = (
    rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
)
_CASED_LETTERS: Final = (
    r"A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293"
    r"\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C"
    r"\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5"
    r"\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77"
    r"\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59"
    r"\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC"
    r"\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107"
    r"\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139"
    r"\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE"
    r"\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E"
    r"\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\x{10400}-\x{1044F}"
    r"\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}"
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}"
)
_HAN: Final = (
    r"\u4E00-\u9FFF\u3400-\u4DBF\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\uF900-\uFAFF"
    r"\x{2F800}-\x{2FA1F}"
)
_ASIAN: Final = (
    r"[\u4E00-\u9FFF\u3400-\u4DBF\u8C48-\uFAFF\u3040-\u309F\u30A0-\u30FF\uFF65-\uFF9F"
    r"\u2F00-\u2FDF\u0E40-\u0E7F\u0E80-\u0EFF\u1780-\u17FF\u1000-\u109F\uAA60-\uAA7F"
    r"\uA9E0-\uA9FF\uAC00-\uD7AF\u1100-\u11FF]+"
)
# Numbers cut into threes from their end; what comes before a number stays with its first digits.
_THREES_FROM_THE_END: Final = r"\P{N}*(?:(?<!\p{N})\p{N}{1,2}(?=(?:\p{N}{3})*(?!\p{N}))|\p{N}{3})"

_GPT2: Final = PreType((_GPT2_WORDS,))
_DIGITS: Final = PreType((_DIGIT, _GPT2_WORDS))
_DBRX: Final = PreType((_words(numbers=_THREE_DIGITS),))
_LLAMA3: Final = replace(_DBRX, ignore_merges=True, adds_start=True)
_QWEN2: Final = PreType((_words(),))
_GPT4O: Final = PreType((_cased(r"\p{L}", f"{_ENDING}?", _THREE_DIGITS),))
_DEEPSEEK3: Final = PreType(
    (_THREE_DIGITS, _CJK, _deepseek3(rf" ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}"))
)
_BLOOM_WORDS: Final = r" ?[^(\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+"
_BLOOM: Final = PreType((_BLOOM_WORDS,))
_TINY_AYA: Final = PreType((_THREES_FROM_THE_END, _uncased(_THREE_DIGITS)))
_BAILING: Final = PreType((_words(lines=r"\s*[\r\n]"),))
_NEWLINES: Final = PreType((r"[^\n]+|[\n]+",), byte_level=False)
_GEMMA4: Final = replace(_NEWLINES, adds_start=True, always_starts=True)

DEFAULT: Final = PreType((r"[\p{P}\$\+<=>\^~\|]+", _GPT2_WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"))

PRE_TYPES: Final = {
    "default": DEFAULT,
    "minicpm5": PreType((_THREE_DIGITS, _words(numbers=r"\p{N}+")), ignore_merges=True),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1"), _LLAMA3),
    **dict.fromkeys(("pixtral", "midm-2.0", "lfm2", "jina-v5-nano"), _LLAMA3),
    "deepseek-llm": PreType(
        (
            r"[\r\n]",
            rf"\s?[{_CASED_LETTERS}]+",
            r"\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3001-\u3002]+",
            r"\s+\z",
            _DEEPSEEK_CJK,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreType(
        (
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            _DEEPSEEK_CJK,
            _DIGIT,
        )
    ),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"), _DEEPSEEK3),
    "spark2_5": PreType((_THREE_DIGITS, _CJK, _deepseek3(r" ?[\p{P}\p{S}]+|[\r\n]"), _DIGIT)),
    "youtu": PreType(
        (
            r"[\uAC00-\uD7A3\u3131-\u318E]+|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014\uFF1A"
            rf"\uFF1B\uFF0C\u3001-\u303F\uFE30-\uFE4F]+|[\u3105-\u312F]+|{_CJK}",
            _uncased(_DIGIT),
        ),
        ignore_merges=True,
    ),
    "falcon": PreType((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2_WORDS, r"[0-9][0-9][0-9]")),
    **dict.fromkeys(("starcoder", "refact", "command-r", "smollm", "codeshell"), _DIGITS),
    **dict.fromkeys(("exaone", "minerva-7b", "mellum2"), _DIGITS),
    **dict.fromkeys(("gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es"), _GPT2),
    **dict.fromkeys(("jina-v2-de", "a.x-4.0", "mellum", "modern-bert", "exaone4"), _GPT2),
    **dict.fromkeys(("jina-v1-en", "jina-v2-code", "roberta-bpe", "mpt", "olmo"), _GPT2),
    **dict.fromkeys(("jais", "trillion", "granite-docling"), _GPT2),
    "jais-2": PreType(
        (
            _words(
                numbers=_THREE_DIGITS,
                spaces="|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
                + r"|\s{1,2}(?!\S)|\s",
            ),
        )
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"), _QWEN2),
    **dict.fromkeys(("stablelm2", "hunyuan", "solar-open", "grok-2"), _QWEN2),
    "qwen35": PreType((_words(r"[\p{L}\p{M}]+", signs=r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "glm5"), _DBRX),
    **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), _BLOOM),
    "viking": PreType((_BLOOM_WORDS, _DIGIT)),
    "tekken": PreType((_cased(r"\p{L}", "", _DIGIT),), ignore_merges=True, adds_start=True),
    "chameleon": PreType(
        (
            r"<sentinel:[0-9]+>",
            r"(?:IMGIMG)(?:(?:A|B|C|D|E|F|G|H|I){1,4})Z",
            r"(?:[\t\n]|    |  )",
            _DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2_WORDS,
        ),
        adds_start=True,
    ),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _GPT4O),
    "granite-embed-multi-97m": PreType(
        (_cased(r"[\p{L}\p{M}]", f"{_ENDING}?", _THREE_DIGITS),), ignore_merges=True
    ),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), _TINY_AYA),
    "kimi-k2": PreType(
        (
            rf"[{_HAN}]+|{_START}[\p{{L}}&&[^{_HAN}]]+{_ENDING}?"
            rf"|{_THREE_DIGITS}|{_SIGNS}|{_LINES}|{_SPACES}",
        )
    ),
    "k2-horizon": PreType((r"'\u017F|" + _words(r"[\p{L}\p{M}\u200C\u200D]+", _THREE_DIGITS),)),
    "superbpe": PreType((r"\p{N}+", r"(?=(?:[0-9]{3})+(?![0-9]))")),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _BAILING),
    "seed-coder": PreType((_words(signs=r" ?[^\s\p{L}\p{N}\r\n]+"),)),
    "ufakzeka": PreType((_words().removeprefix(f"{_ENDING}|"),)),
    "afmoe": PreType(
        (_THREES_FROM_THE_END, _ASIAN, _deepseek3(rf" ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}"))
    ),
    "laguna": PreType((r"[^\n]+|[\n]+", _words())),
    "exaone-moe": PreType(
        (
            _words(
                r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
                signs=r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
                lines=r"\s*[\r\n]",
            ),
        )
    ),
    **dict.fromkeys(("gemma4", "granite-embed-multi-311m"), _GEMMA4),
    "sarvam-moe": _NEWLINES,
}
