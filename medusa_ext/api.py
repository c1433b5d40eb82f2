"""The public functions: load a model, generate from it, stream from it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from .checkpoints.types import DEVICES, DTYPES, KV_DTYPES
from .drafting.drafter import Drafter
from .drafting.trees import Tree
from .engine.arguments import check_bool, check_choice, check_place
from .engine.generation import Run
from .engine.model import Model
from .engine.options import Options
from .engine.results import Result
from .engine.session import Session


def load(
    model: str | Path,
    heads: str | Path | None = "auto",
    device: str = "auto",
    dtype: str = "auto",
    kv_dtype: str = "auto",
    *,
    deterministic: bool = False,
    progress: bool = False,
) -> Model:
    """Loads a model: the default's name, a directory, a .gguf file or a hub id.

    Args:
        heads: Medusa heads: "auto" (those in the model's directory, else packaged ones made for
            it, else none), None, a packaged name, a path or a hub id.
        device: "cpu", "cuda" (the first visible GPU), or "auto": a GPU where there is one and this
            build has the CUDA backend, else the CPU.
        dtype: format of the weights; "auto" keeps the file's own precision, on CUDA bfloat16.
        kv_dtype: format of the cache; "auto" is float32 on a CPU, the weights' format on CUDA.
        deterministic: on CUDA, fixes the matrix products' algorithms and attention's splits, so
            that a row's result depends less on how many rows are computed with it. A CPU's results
            never depend on that.
        progress: shows a bar on standard error.

    Raises:
        OSError: nothing there, or it could not be read or fetched.
        ValueError: an argument, or a damaged or unsupported file; the message says which.
        RuntimeError: no CUDA device is present, or none that can be used.
        MemoryError: the model does not fit into the device's memory.
    """
    from .engine.load import load_model

    for name, value, allowed in (
        ("device", device, DEVICES),
        ("dtype", dtype, DTYPES),
        ("kv_dtype", kv_dtype, KV_DTYPES),
    ):
        check_choice(name, value, allowed)
    check_place("model", model)
    if heads is not None:
        check_place("heads", heads)
    for name, flag in (("deterministic", deterministic), ("progress", progress)):
        check_bool(name, flag)
    return load_model(
        model,
        heads,
        device,
        dtype,
        kv_dtype,
        deterministic=deterministic,
        progress=progress,
    )


def generate(
    model: Model | Session,
    prompt: Any,
    max_new_tokens: int = 256,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    acceptance: str = "lossless",
    epsilon: float = Options.epsilon,
    delta: float = Options.delta,
    seed: int | Sequence[int] | None = None,
    tree: str | int | Tree | None = "auto",
    draft: str | Drafter = "auto",
    stop: str | Sequence[str] | None = None,
    ignore_eos: bool = False,
    logprobs: int = 0,
    profile: bool = False,
) -> Any:
    """Continues a prompt; with a session, from where it stands.

    Args:
        model: a model, or a session of `Model.session`, which keeps its text.
        prompt: raw text (control tokens written in it count as such), a list of token ids, a list
            of chat messages, a conversation (a mapping with `messages` and, for the model's
            chat template, `tools`, `chat_template_kwargs` and the name of a `chat_template`
            where there are several), or a list of prompts: a batch. A session takes one prompt
            for each of its sequences; raw text and ids are appended to its text, a chat is
            compared with it and only what is new is computed; None goes on without any new text.
        temperature: 0 is greedy. `top_p` and `top_k` (0: all) cut the distribution first.
        acceptance: "lossless": the text is that of plain decoding, for any tree. "typical": drafts
            with a probability above min(epsilon, delta * exp(-entropy)) are accepted, so the text
            depends on the tree; at temperature 0 it is greedy.
        seed: fixes the draws: an int (sequence b of a batch uses seed + b), one per prompt, or
            None: drawn, and reported in the result.
        tree: "auto": what is fastest here; None: plain decoding; a number: the best tree of so
            many nodes, the root included; a Tree: that arrangement of the heads' guesses.
        draft: where drafts come from: "heads", "lookup" (earlier occurrences of the last tokens),
            "both", or "auto": both with heads, else lookup; or a Drafter of your own, which makes
            the trees itself.
        stop: text ends before any of these strings. A control token's spelling stops at it.
        ignore_eos: goes on after end tokens.
        logprobs: the n most likely tokens at each place, and the chosen one, in the result.
        profile: tells every kernel apart in the result's `stats.kernels`, and on a GPU also the
            phases of a step in `stats.seconds` (on a CPU they always are), which makes its steps
            slower.

    Returns:
        A Result, or a list of them for a batch.

    Raises:
        TypeError, ValueError: an argument; the message names it, what it needs and what it got.
        RuntimeError: the session is in use.
        KeyboardInterrupt: within milliseconds of Ctrl-C, also in a long prompt; a session keeps its
            text so far and can go on.
        Exception: what a drafter of yours raises; its `results` hold what was decoded.
    """
    options = Options.checked(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        acceptance=acceptance,
        epsilon=epsilon,
        delta=delta,
        seed=seed,
        tree=tree,
        draft=draft,
        stop=stop,
        ignore_eos=ignore_eos,
        logprobs=logprobs,
        profile=profile,
    )
    with Run.open(model, prompt, options) as run:
        for _ in run.steps():
            pass
        results = run.results()
    return results if run.is_batch else results[0]


class Stream:
    """Pieces of text as they are settled; `result` holds everything once it has ended.

    An iterator of strings that join to `result.text`. It holds its session until it is read to the
    end or closed (`close`, or leaving a `with` block).
    """

    def __init__(self, model: Model | Session, prompt: Any, options: Options) -> None:
        self._result: Result | None = None
        self._pieces = self._generate(model, prompt, options)
        # Errors in the arguments show here, not at the first piece.
        self._first: str | None = next(self._pieces, None)

    @property
    def result(self) -> Result:
        """The finished result; RuntimeError before the end."""
        if self._result is None:
            raise RuntimeError("stream: needs to be read to its end before its result is there")
        return self._result

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        piece, self._first = self._first, None
        return next(self._pieces) if piece is None else piece

    def close(self) -> None:
        """Ends the generation; a session keeps the text so far."""
        self._first = None
        self._pieces.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _generate(
        self, model: Model | Session, prompt: Any, options: Options
    ) -> Generator[str, None, None]:
        with Run.open(model, prompt, options, incremental=True) as run:
            if run.is_batch:
                raise ValueError("prompt: a stream needs a single prompt, got a list of prompts")
            try:
                for _ in run.steps():
                    if piece := run.requests[0].take_text():
                        yield piece
            except Exception:
                # What was held back comes first: it had been decoded.
                if piece := run.requests[0].take_text():
                    yield piece
                raise
            self._result = run.results()[0]
            if piece := run.requests[0].take_text():
                yield piece


def stream(
    model: Model | Session, prompt: Any, max_new_tokens: int = 256, **options: Any
) -> Stream:
    """Continues a single prompt and hands out its text piece by piece.

    Takes the arguments of `generate`. Pieces never end inside a character and never show the
    beginning of a stop string. Raises like `generate`, and TypeError for an unknown option.
    """
    unknown = sorted(set(options) - set(Options.__dataclass_fields__))
    if unknown:
        raise TypeError(f"stream: got an unknown option {unknown[0]!r}")
    return Stream(model, prompt, Options.checked(max_new_tokens=max_new_tokens, **options))
