"""A loaded model: packed weights, tokenizer, heads and what is known about them."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ..drafting.costs import CostCurve, LiveCosts, cache_path, load_curve, save_curve
from ..drafting.trees import MAX_NODES, NestedTrees, default_trees
from ..text.detokenizer import TextDecoder
from .arguments import integer
from .measurement import measure
from .session import Session

if TYPE_CHECKING:
    from .. import _C
    from ..checkpoints import ModelConfig

DEFAULT_MAX_NODES: Final = 64
DEFAULT_MAX_LENGTH: Final = 4096
_LENGTH_STEP: Final = 512
_MAX_BATCH: Final = 4096


@dataclass(frozen=True, eq=False)
class Model:
    """Immutable: a model and, perhaps, its Medusa heads. Made by `medusa_ext.load`.

    `tokenizer` is transformers'. `head_trees` are the heads' best trees of each size, from their
    calibration where there is one (`calibrated`). Any number of sessions and threads may share it.
    """

    name: str
    config: ModelConfig
    native: _C.Model
    tokenizer: Any
    fingerprint: str
    device: str = "cpu"
    heads: _C.Heads | None = None
    head_trees: NestedTrees | None = None
    calibrated: bool = False
    kv_dtype: str = "float32"
    eos_ids: frozenset[int] = frozenset()
    _idle: list[Session] = field(default_factory=list, repr=False, init=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, init=False)
    _measuring: Any = field(default_factory=threading.Lock, repr=False, init=False)
    _costs: dict[tuple[str, ...], LiveCosts] = field(default_factory=dict, repr=False, init=False)

    def session(
        self,
        batch: int = 1,
        max_length: int | None = None,
        max_nodes: int = DEFAULT_MAX_NODES,
        kv_memory: int | None = None,
    ) -> Session:
        """A session of `batch` sequences with a cache of `max_length` tokens each: 4096, or what
        the model was made for where that is less. `max_nodes` bounds the trees that can be used.
        `kv_memory`: bytes that the cache may take at most, all sequences together, at least what
        one of them needs; by default, what all of them need at their longest. On a CPU it is taken
        as texts grow. Raises ValueError for sizes out of range and MemoryError if the cache does
        not fit, then or (with `kv_memory`) when the texts need more than it holds.
        """
        integer("batch", batch, 1, _MAX_BATCH)
        limit = self.config.max_position_embeddings
        if max_length is None:
            max_length = min(DEFAULT_MAX_LENGTH, limit)
        integer("max_length", max_length, 1, limit)
        integer("max_nodes", max_nodes, 1, MAX_NODES)
        if kv_memory is not None:
            integer("kv_memory", kv_memory, 1, sys.maxsize)
        return Session(self, batch, max_length, max_nodes, kv_memory or 0)

    @contextlib.contextmanager
    def borrowed_session(self, batch: int, length: int, max_nodes: int) -> Iterator[Session]:
        """An empty session of at least this size, kept for the next call of a like one."""
        limit = self.config.max_position_embeddings
        with self._lock:
            fitting = [
                idle
                for idle in self._idle
                if idle.batch == batch
                and idle.max_length >= min(length, limit)
                and idle.max_nodes >= max_nodes
            ]
            session = fitting[0] if fitting else None
            # One idle session is kept: a cache is large.
            self._idle.clear()
        if session is None:
            rounded = min(-(-length // _LENGTH_STEP) * _LENGTH_STEP, limit)
            session = Session(self, batch, rounded, max(max_nodes, DEFAULT_MAX_NODES))
        session.reset()
        try:
            yield session
        finally:
            with self._lock:
                self._idle[:] = [session]

    @cached_property
    def text_decoder(self) -> Any:
        """What turns token ids into text: a `tokenizers.Tokenizer` or the like."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return TextDecoder(self.tokenizer) if backend is None else backend

    def trees(self) -> NestedTrees:
        """The heads' best trees. Raises ValueError if the model has no heads."""
        if self.heads is None:
            raise ValueError(f"draft: needs heads, and {self.name} was loaded without any")
        return self.head_trees or default_trees(self.heads.num_heads)

    def cost_curve(self, remeasure: bool = False, progress: Any = None) -> CostCurve:
        """What a step costs here by its rows: known, from the user cache, or measured now."""
        return self.live_costs(remeasure, progress).curve

    def live_costs(self, remeasure: bool = False, progress: Any = None) -> LiveCosts:
        """The cost curve with what this model's decoding has shown since."""
        from .. import _C

        facts = [self.fingerprint, self.device, self.native.isa, self.kv_dtype]
        facts += [*sorted(set(self.native.formats.values())), str(_C.num_threads())]
        if self.heads is not None:
            facts += [self.heads.kind, str(self.heads.num_heads), str(self.heads.packed_bytes)]
        key = tuple(facts)
        # A lock of its own: measuring takes seconds, and others want sessions meanwhile.
        with self._measuring:
            if key not in self._costs or remeasure:
                curve = None if remeasure else load_curve(cache_path(key))
                if curve is None:
                    native = _C.Session(self.native, 1, 256, DEFAULT_MAX_NODES, self.kv_dtype)
                    curve = measure(native, self.config.vocab_size, self.heads, progress)
                    save_curve(cache_path(key), curve)
                self._costs[key] = LiveCosts(curve)
            return self._costs[key]
