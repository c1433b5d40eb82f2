"""llama.cpp's server with its own lookup drafts, in a process of its own.

Run as a program it reads requests and writes answers, one JSON line each; its end (the package
does not always end cleanly) and its log are then no one's business.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from . import CHECKOUT

_ROOM: Final = 2048


class LlamaServer:
    """A GGUF file in llama.cpp's server; `draft`: tokens per lookup draft, 0: plain decoding.

    Close it, or use it in a `with` block.
    """

    def __init__(self, path: Path, threads: int, draft: int) -> None:
        """Raises RuntimeError if the server does not start."""
        command = [sys.executable, "-m", __name__, str(path.absolute()), str(threads), str(draft)]
        self._process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._answer() != {"ready": True}:
            raise RuntimeError(f"llama.cpp's server did not start with {path}")

    def generate(self, prompt: Sequence[int], num_tokens: int) -> tuple[int, float]:
        """(tokens after the first, the seconds they took) of a greedy generation."""
        assert self._process.stdin is not None
        request = {"prompt": list(map(int, prompt)), "n_predict": num_tokens}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._answer()
        # The server times what follows its first token.
        return int(answer["predicted_n"]) - 1, float(answer["predicted_ms"]) / 1e3

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"llama.cpp's server ended with status {self._process.wait()}")

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def __enter__(self) -> LlamaServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(path: str, threads: int, draft: int) -> None:
    """Answers requests until the input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = _ROOM
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    if draft:
        kinds = xllamacpp.common_speculative_type
        params.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        params.speculative.ngram_simple.size_n = 3
        params.speculative.ngram_simple.size_m = draft
    server = xllamacpp.Server(params)
    print(json.dumps({"ready": True}), flush=True)
    fixed = {"temperature": 0.0, "samplers": ["temperature"], "ignore_eos": True}
    for line in sys.stdin:
        answer = server.handle_completions({**json.loads(line), **fixed, "cache_prompt": False})
        print(json.dumps(answer["timings"]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
