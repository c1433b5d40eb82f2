"""llama.cpp as PyPI's `xllamacpp` ships it, called through its C interface."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

_MOST_PARAMETER_BYTES: Final = 1024


class _Parameters(ctypes.Structure):
    """What the library's own constructor of default parameters returns: handed back as it is,
    never looked into. Longer than any version's, so that the library finds all it reads."""

    _fields_ = (("opaque", ctypes.c_byte * _MOST_PARAMETER_BYTES),)


class _Batch(ctypes.Structure):
    """llama_batch, as llama.h documents it."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


def version() -> str:
    """The package's version, and what its library was compiled for."""
    import xllamacpp

    features = [
        part.split("=")[0].strip()
        for part in xllamacpp.get_system_info().partition(":")[2].split("|")
        if "=" in part
    ]
    return f"xllamacpp {importlib.metadata.version('xllamacpp')} ({', '.join(features)})"


@functools.cache
def _library() -> ctypes.CDLL:
    import xllamacpp

    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    library.llama_model_default_params.restype = _Parameters
    library.llama_context_default_params.restype = _Parameters
    library.llama_batch_init.restype = _Batch
    library.llama_n_ctx.restype = ctypes.c_uint32
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory"):
        getattr(library, name).restype = ctypes.c_void_p
    library.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    library.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
    # A log function that does nothing and, unlike one of Python's, is still there at exit.
    library.llama_log_set(ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p), None)
    library.llama_backend_init()
    return library


class LlamaCpp:
    """A GGUF file in llama.cpp, one sequence of the library's default context (512 tokens).

    Close it, or use it in a `with` block.
    """

    def __init__(self, path: Path, threads: int, vocab_size: int) -> None:
        """Raises RuntimeError if the load fails."""
        self._library = library = _library()
        self._vocab_size = vocab_size
        self._model = library.llama_model_load_from_file(
            os.fsencode(path), library.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        self._context = library.llama_init_from_model(
            ctypes.c_void_p(self._model), library.llama_context_default_params()
        )
        if not self._context:
            raise RuntimeError(f"llama.cpp could not make a context for {path}")
        library.llama_set_n_threads(self._handle, threads, threads)
        self._memory = ctypes.c_void_p(library.llama_get_memory(self._handle))
        self._room = int(library.llama_n_ctx(self._handle))
        self._batch = library.llama_batch_init(self._room, 0, 1)

    @property
    def _handle(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._context)

    def forward(
        self, tokens: Sequence[int] | npt.NDArray[np.int32], position: int, logits: str = "all"
    ) -> None:
        """One forward at `position`, forgetting what was there and after.

        logits: of "all" rows, as verifying needs, or of the "last" one. Raises ValueError if the
        context ends before the rows do.
        """
        if position + len(tokens) > self._room:
            need = f"at most the context's {self._room} tokens"
            raise ValueError(f"llama.cpp: needs {need}, got {position + len(tokens)}")
        self._library.llama_memory_seq_rm(self._memory, 0, position, -1)
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = int(token)
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = logits == "all" or i + 1 == len(tokens)
        if self._library.llama_decode(self._handle, batch) != 0:
            raise RuntimeError("llama_decode failed")
        self._library.llama_synchronize(self._handle)

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        """[rows, V] of the last forward, which asked for that many; valid until the next."""
        pointer = self._library.llama_get_logits(self._handle)
        return np.ctypeslib.as_array(pointer, (rows, self._vocab_size))

    def generate(self, prompt: Sequence[int], num_tokens: int) -> list[int]:
        """Greedy decoding; the first token is the prefill's."""
        self.forward(prompt, 0, "last")
        return self.extend(len(prompt), num_tokens)

    def extend(self, length: int, num_tokens: int) -> list[int]:
        """Greedy decoding of the last forward's continuation, at `length`."""
        tokens = [int(self.logits(1)[0].argmax())]
        while len(tokens) < num_tokens:
            self.forward([tokens[-1]], length + len(tokens) - 1)
            tokens.append(int(self.logits(1)[0].argmax()))
        return tokens

    def close(self) -> None:
        """Frees the model."""
        if self._context:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self._handle)
            self._library.llama_model_free(ctypes.c_void_p(self._model))
            self._context = None

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
