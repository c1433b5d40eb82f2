"""llama.cpp's own tokenisation of a GGUF file, through the C interface in PyPI's `xllamacpp`."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any


class _Params(ctypes.Structure):
    """llama_model_params, handed through by value; longer than any version's."""

    _fields_ = (("words", ctypes.c_uint32 * 256),)


@functools.cache
def _library() -> Any:
    import xllamacpp

    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    library.llama_model_default_params.restype = _Params
    for name in ("llama_model_load_from_file", "llama_model_get_vocab"):
        getattr(library, name).restype = ctypes.c_void_p
    library.llama_vocab_is_eog.restype = ctypes.c_bool
    # A log function that does nothing and, unlike one of Python's, is still there at exit.
    library.llama_log_set(ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p), None)
    library.llama_backend_init()
    return library


class LlamaTokenizer:
    """The vocabulary of an opened file, with which `close` is to be called."""

    def __init__(self, path: Path) -> None:
        library = _library()
        params = library.llama_model_default_params()
        model = library.llama_model_load_from_file(os.fsencode(path), params)
        assert model, f"llama.cpp could not load {path}"
        self._model = ctypes.c_void_p(model)
        self._vocab = ctypes.c_void_p(library.llama_model_get_vocab(self._model))

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The text's ids; control tokens written in it count as such. `special`: with what the
        vocabulary adds at the beginning and the end."""
        raw = text.encode()
        room = len(raw) + 16
        ids = (ctypes.c_int32 * room)()
        flags = (ctypes.c_bool(special), ctypes.c_bool(True))
        count = _library().llama_tokenize(self._vocab, raw, len(raw), ids, room, *flags)
        assert count >= 0
        return list(ids[:count])

    def ends(self, size: int) -> set[int]:
        """Those of `size` ids that end a generation."""
        return {token for token in range(size) if _library().llama_vocab_is_eog(self._vocab, token)}

    def close(self) -> None:
        """Frees the model."""
        _library().llama_model_free(self._model)

    def __enter__(self) -> LlamaTokenizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
