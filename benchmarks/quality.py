"""What quantisation costs: perplexity on the standard library's docstrings."""

from __future__ import annotations

import ast
import math
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from medusa_ext.engine.step import run_step

from .llama_cpp import LlamaCpp
from .ours import Ours
from .rows import Row
from .setting import Setting

WINDOW: Final = 512
_CHARACTERS_PER_TOKEN: Final = 8  # more text than could be needed
# Float32 is the measure of the others; a ratio of perplexities may be so much above 1.
_ALLOWED: Final = 0.005


def docstrings(characters: int) -> str:
    """Docstrings of the standard library's modules, in the order of their file names."""
    parts: list[str] = []
    size = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) > 80:
                    parts.append(text)
                    size += len(text)
        if size > characters:
            break
    return "\n\n".join(parts)


def text_windows(tokenizer: Any, num_tokens: int) -> npt.NDArray[np.int32]:
    """[windows, 512] tokens of held-out text, at least `num_tokens` of them if there is as much."""
    text = docstrings(num_tokens * _CHARACTERS_PER_TOKEN)
    ids = np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
    windows = min(-(-num_tokens // WINDOW), len(ids) // WINDOW)
    return ids[: windows * WINDOW].reshape(windows, WINDOW)


def perplexity(
    logits_of: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float32]],
    windows: npt.NDArray[np.int32],
) -> float:
    """exp of the mean surprise of every token but each window's first two.

    logits_of: the T tokens of a window to [T - 1, V] logits, row i those after token i + 1.
    """
    import torch

    total, count = 0.0, 0
    for window in windows:
        logits = torch.from_numpy(logits_of(window))
        targets = torch.from_numpy(window[2:].astype(np.int64))
        total += float(torch.nn.functional.cross_entropy(logits[:-1], targets, reduction="sum"))
        count += len(targets)
    return math.exp(total / count)


def measure_quality(setting: Setting) -> Iterator[Row]:
    """Perplexities of float32, int8, int4 and llama.cpp's Q8_0 and Q4_1 on the same windows.

    float32 and int8 are the engine's, from the same file of float32 weights; Q4_1 is the file that
    those weights come from, Q8_0 holds them stored anew.
    """
    if not setting.wants("quality"):
        return
    figures: dict[str, float] = {}
    windows: npt.NDArray[np.int32] | None = None
    for name, storage, dtype in (
        ("float32", "F32", "auto"),
        ("int8", "F32", "int8"),
        ("int4", "Q4_1", "auto"),
    ):
        setting.begin(f"perplexity: {name}")
        ours = Ours(setting.files(storage), dtype, WINDOW + 8, WINDOW)
        ours.session.keep_logits(0, True)
        if windows is None:
            windows = text_windows(ours.model.tokenizer, setting.sizes.quality_tokens)
        figures[name] = perplexity(partial(_logits, ours), windows)
        vocab_size = ours.vocab_size
        del ours
    assert windows is not None
    for storage in ("Q8_0", "Q4_1"):
        setting.begin(f"perplexity: llama.cpp {storage}")
        with LlamaCpp(setting.files(storage), setting.threads, vocab_size) as llama:
            figures[f"llama.cpp {storage}"] = perplexity(partial(_llama_logits, llama), windows)
    note = f"{windows.size} tokens of the standard library's docstrings, windows of {WINDOW}"
    for name, base in (("int8", "float32"), ("int4", "llama.cpp Q4_1")):
        yield Row(
            "quality",
            f"perplexity of {name} over {base}",
            figures[name] / figures[base],
            "x",
            1.0 + _ALLOWED,
            at_most=True,
            details=figures,
            note=note,
        )


def _logits(ours: Ours, window: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """[511, V]: the window after its first token verified as one chain, as decoding would."""
    session = ours.session
    session.truncate(0, 0)
    session.prefill(0, window[:1])
    session.truncate(0, 1, int(window[1]))
    chain = np.arange(len(window) - 1, dtype=np.int32) - 1

    def propose() -> bool:
        session.set_tree(0, window[1:], chain)
        return True

    run_step(session, propose)
    return session.tree_logits(0)


def _llama_logits(llama: LlamaCpp, window: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    llama.forward(window, 0)
    return llama.logits(len(window))[1:]
